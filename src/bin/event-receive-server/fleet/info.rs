//! What a stream says of itself, in the answer to STREAM.INFO.

use serde::Deserialize;
use serde_json::Value;

use super::message::MOST_OF_HEADERS;

/// What STREAM.INFO says, as far as it matters.
#[derive(Debug, Deserialize)]
pub struct StreamInfo {
    pub config: Config,
    pub state: State,
    /// Of a server that is alone there is none.
    #[serde(default)]
    pub cluster: Cluster,
}

/// The servers that have a copy. Only this shows a lost quorum: STREAM.INFO is still answered, for 20 s by the former leader,
/// then without a leader.
#[derive(Debug, Default, Deserialize)]
pub struct Cluster {
    /// Empty where there is none.
    #[serde(default)]
    leader: String,
    /// Without the leader.
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    #[serde(default)]
    current: bool,
}

#[derive(Debug, Deserialize)]
pub struct State {
    pub messages: u64,
    pub bytes: u64,
}

/// Sizes in bytes, times in nanoseconds; -1 or 0: no limit.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    pub subjects: Vec<String>,
    pub retention: String,
    pub storage: String,
    pub discard: String,
    pub persist_mode: String,
    pub num_replicas: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msg_size: i64,
    pub max_msgs_per_subject: i64,
    pub discard_new_per_subject: bool,
    pub duplicate_window: i64,
    pub no_ack: bool,
    pub sealed: bool,
    pub mirror: Option<Value>,
}

impl Default for Config {
    /// The values that apply if a server leaves them out.
    fn default() -> Config {
        Config {
            subjects: Vec::new(),
            retention: "limits".into(),
            storage: "file".into(),
            discard: "old".into(),
            persist_mode: String::new(),
            num_replicas: 1,
            max_msgs: -1,
            max_bytes: -1,
            max_age: 0,
            max_msg_size: -1,
            max_msgs_per_subject: -1,
            discard_new_per_subject: false,
            duplicate_window: 0,
            no_ack: false,
            sealed: false,
            mirror: None,
        }
    }
}

/// The largest body that is taken, in bytes.
pub fn limit(config: &Config, max_payload: usize) -> u64 {
    let of_stream = u64::try_from(config.max_msg_size).ok().filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
    of_stream.min(max_payload as u64).saturating_sub(MOST_OF_HEADERS as u64)
}

/// How full the stream is, from 0 to 1: in bytes or in messages, whichever limit is nearer.
pub fn fullness(info: &StreamInfo) -> f64 {
    let of = |is: u64, most: i64| if most > 0 { is as f64 / most as f64 } else { 0.0 };
    of(info.state.bytes, info.config.max_bytes).max(of(info.state.messages, info.config.max_msgs))
}

/// How many copies there are, and how many of them have everything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Copies {
    pub all: usize,
    pub current: usize,
}

/// The copies of a stream; the error says that there are too few for an event to be acknowledged.
pub fn copies(cluster: &Cluster) -> (Copies, Result<(), String>) {
    let Cluster { leader, replicas } = cluster;
    if replicas.is_empty() {
        return (Copies { all: 1, current: 1 }, Ok(())); // one copy has no leader to elect
    }
    let leading = usize::from(!leader.is_empty());
    let current = replicas.iter().filter(|replica| replica.current).count() + leading;
    let copies = Copies { all: replicas.len() + leading, current };
    let verdict = match leading {
        0 => Err("the stream has no leader: too few of its servers are there".into()),
        _ if current * 2 <= copies.all => {
            Err(format!("only {current} of the stream's {} copies are there", copies.all))
        }
        _ => Ok(()),
    };
    (copies, verdict)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(changes: Value) -> Config {
        serde_json::from_value(changes).unwrap()
    }

    #[test]
    fn the_limit_of_a_body_is_the_tighter_one_without_the_headers() {
        assert_eq!(limit(&config(json!({"max_msg_size": 12 << 20})), 16 << 20), (12 << 20) - (8 << 10));
        assert_eq!(limit(&config(json!({"max_msg_size": -1})), 1 << 20), (1 << 20) - (8 << 10));
        assert_eq!(limit(&config(json!({"max_msg_size": 100})), 1 << 20), 0);
    }

    #[test]
    fn a_stream_without_a_quorum_is_known_by_its_copies() {
        let of = |cluster: Value| copies(&serde_json::from_value(cluster).unwrap());
        let counts = |cluster: Value| (of(cluster.clone()).0.current, of(cluster.clone()).0.all, of(cluster).1.is_ok());
        let is = |current: bool| json!({"name": "n", "current": current, "active": 1});
        assert_eq!(counts(json!({"leader": "a", "replicas": [is(true), is(true)]})), (3, 3, true));
        assert_eq!(counts(json!({"leader": "a", "replicas": [is(true), is(false)]})), (2, 3, true));
        assert_eq!(counts(json!({"leader": "a", "replicas": [is(false), is(false)]})), (1, 3, false));
        assert_eq!(counts(json!({"replicas": [is(true), is(false), is(false)]})), (1, 3, false));
        assert_eq!(counts(json!({"replicas": [is(true), is(true), is(true)]})), (3, 3, false));
        assert_eq!(counts(json!({"leader": "a"})), (1, 1, true));
    }

    #[test]
    fn fullness_is_that_of_the_tightest_limit() {
        let info = |max_bytes: i64, max_msgs: i64| StreamInfo {
            config: config(json!({"max_bytes": max_bytes, "max_msgs": max_msgs})),
            state: State { messages: 9, bytes: 50 },
            cluster: Cluster::default(),
        };
        assert_eq!([fullness(&info(100, -1)), fullness(&info(100, 10)), fullness(&info(-1, -1))], [0.5, 0.9, 0.0]);
    }
}
