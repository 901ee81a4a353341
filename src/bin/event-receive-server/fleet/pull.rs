//! One consumer of a stream, read for as long as the process runs.
//!
//! This file creates the consumer. It is durable, so that it has as many copies as the stream. The servers delete it five minutes
//! after its last reader has gone. A pull requests a few messages and a bounded number of bytes: a server that cannot send
//! everything in time sends the same messages again. A message is acknowledged after it was taken. A message that is not
//! acknowledged is delivered again after [`ACK_WAIT_SECONDS`]: a message may come twice, and none is left out. A consumer that
//! was deleted is created again and begins where [`Begin`] says, so its reader has to know what it has seen.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::replies::Replies;

/// The limits of one pull.
const MESSAGES: usize = 8;
const BYTES: usize = 32 << 20;
/// The most messages that are delivered and not acknowledged.
const PENDING: usize = 64;
const ACK_WAIT_SECONDS: u64 = 30;
/// The servers delete a consumer that had no reader for this long.
const INACTIVE_SECONDS: u64 = 300;
/// A pull without messages ends after this time.
const PULL: Duration = Duration::from_secs(30);
/// The interval at which the server reports that there are no messages.
const HEARTBEAT: Duration = Duration::from_secs(3);
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(1);
const NANOSECONDS: u64 = 1_000_000_000;
/// JetStream's error codes for a consumer and for a stream that does not exist.
const NO_CONSUMER: u64 = 10014;
const NO_STREAM: u64 = 10059;

/// Where a new consumer begins.
#[derive(Clone, Copy)]
pub enum Begin {
    /// With the last message of each subject.
    LastOfEach,
    /// Far enough back that at least this many messages come, if there are so many. It is found by doubling, so up to twice as
    /// many come.
    Last(u64),
}

/// See the module.
pub struct Consumer {
    pub client: Client,
    pub stream: String,
    pub name: String,
    pub subjects: &'static [&'static str],
    pub begin: Begin,
}

/// Receives the messages, and reports of how the reading goes.
pub trait MessageHandler {
    /// Handles a message, which may have come before.
    fn handle(&self, message: Message) -> impl Future<Output = ()>;

    /// Reports why no messages arrive at present; `None` while all is well.
    fn report(&self, fault: Option<String>);
}

/// Why a pull ended.
enum Ended {
    /// All is well.
    Completed,
    /// Nothing arrived in time, or the server reported an error: check whether the consumer exists.
    Failed(String),
    /// The consumer is not there.
    NoConsumer,
}

impl Consumer {
    /// Reads for ever.
    pub async fn run(self, handler: impl MessageHandler) {
        loop {
            let why = match self.read(&handler).await {
                Ok(()) => format!("the consumer {} is gone", self.name),
                Err(why) => why,
            };
            handler.report(Some(why));
            sleep(PAUSE).await;
        }
    }

    /// Creates the consumer and reads it until it is gone.
    async fn read(&self, handler: &impl MessageHandler) -> Result<(), String> {
        let replies = Replies::start(&self.client).await?;
        self.create(&replies).await?;
        handler.report(None);
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(format!("{inbox}.*")).await;
        let mut messages = subscribed.map_err(|error| format!("cannot subscribe: {error}"))?;
        for number in 0_u64.. {
            match self.pull(&mut messages, &format!("{inbox}.{number}"), handler).await? {
                Ended::Completed => handler.report(None),
                Ended::NoConsumer => break,
                Ended::Failed(why) => {
                    sleep(PAUSE).await;
                    match self.request(&replies, "CONSUMER.INFO", &self.path(), Value::Null).await {
                        Ok(_) => {}
                        Err((Some(NO_CONSUMER | NO_STREAM), _)) => break,
                        Err((_, error)) => handler.report(Some(format!("{why}; {error}"))),
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one request for messages and reads until it is done. Late messages of an earlier request are taken, too.
    async fn pull(
        &self,
        messages: &mut Subscriber,
        inbox: &str,
        handler: &impl MessageHandler,
    ) -> Result<Ended, String> {
        // A message that is larger than what is asked for would never come.
        let bytes = BYTES.max(self.client.max_payload() + (64 << 10));
        let request = json!({"batch": MESSAGES, "max_bytes": bytes, "expires": nanoseconds(PULL), "idle_heartbeat": nanoseconds(HEARTBEAT)});
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}", self.path());
        let asked = self.client.publish_with_reply(next, inbox.to_owned(), request.to_string().into()).await;
        asked.map_err(|error| format!("cannot ask for messages: {error}"))?;
        let mut count = 0;
        while count < MESSAGES {
            let Ok(message) = timeout(3 * HEARTBEAT, messages.next()).await else {
                return Ok(Ended::Failed("the stream's servers say nothing".into()));
            };
            let message = message.ok_or("the connection has ended")?;
            match message.status {
                None => {
                    self.take(message, handler).await?;
                    count += 1;
                }
                Some(_) if message.subject.as_str() != inbox => {} // of an earlier request
                Some(StatusCode::IDLE_HEARTBEAT) => handler.report(None),
                Some(StatusCode::TIMEOUT) => return Ok(Ended::Completed),
                Some(status) => {
                    let said = message.description.unwrap_or_default();
                    // The bytes are used up: that is as it should be.
                    if said.contains("MaxBytes") && count > 0 {
                        return Ok(Ended::Completed);
                    }
                    let is_gone = said.contains("Consumer Deleted");
                    return Ok(if is_gone {
                        Ended::NoConsumer
                    } else {
                        Ended::Failed(format!("the stream says {status} {said}"))
                    });
                }
            }
        }
        Ok(Ended::Completed)
    }

    async fn take(&self, message: Message, handler: &impl MessageHandler) -> Result<(), String> {
        let Some(reply) = message.reply.clone() else { return Ok(()) };
        handler.handle(message).await;
        let acknowledged = self.client.publish(reply, "+ACK".into()).await;
        acknowledged.map_err(|error| format!("cannot acknowledge: {error}"))
    }

    /// Creates the consumer where [`Begin`] says.
    async fn create(&self, replies: &Replies) -> Result<(), String> {
        let error = |(_, error): (Option<u64>, String)| error;
        let Begin::Last(wanted) = self.begin else {
            return self.create_at(replies, None).await.map(|_| ()).map_err(error);
        };
        let info = self.request(replies, "STREAM.INFO", &self.stream, Value::Null).await.map_err(error)?;
        let state = |key: &str| info["state"][key].as_u64().unwrap_or_default();
        let (first, last) = (state("first_seq"), state("last_seq"));
        // Large events are fewer, so that a start does not read the whole stream.
        let average = state("bytes") / state("messages").max(1);
        let wanted = wanted.min(MOST_AT_THE_START / average.max(1)).max(1);
        // Between them are messages of other subjects, nobody knows how many.
        let mut back = wanted;
        loop {
            let start = (last + 1).saturating_sub(back).max(first).max(1);
            let pending = self.create_at(replies, Some(start)).await.map_err(error)?;
            if pending >= wanted || start <= first.max(1) {
                return Ok(());
            }
            back = back.saturating_mul(2);
        }
    }

    /// Creates the consumer, and deletes an older one first. Returns how many messages are in the stream for it.
    async fn create_at(&self, replies: &Replies, start: Option<u64>) -> Result<u64, (Option<u64>, String)> {
        match self.request(replies, "CONSUMER.DELETE", &self.path(), Value::Null).await {
            Ok(_) | Err((Some(NO_CONSUMER), _)) => {}
            Err(error) => return Err(error),
        }
        let mut config = json!({"durable_name": self.name, "ack_policy": "explicit", "ack_wait": ACK_WAIT_SECONDS * NANOSECONDS,
            "max_ack_pending": PENDING, "max_deliver": -1, "inactive_threshold": INACTIVE_SECONDS * NANOSECONDS,
            "filter_subjects": self.subjects, "replay_policy": "instant", "deliver_policy": "last_per_subject"});
        if let Some(start) = start {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = start.into();
        }
        let request = json!({"stream_name": self.stream, "config": config});
        let info = self.request(replies, "CONSUMER.DURABLE.CREATE", &self.path(), request).await?;
        Ok(info["num_pending"].as_u64().unwrap_or_default())
    }

    fn path(&self) -> String {
        format!("{}.{}", self.stream, self.name)
    }

    /// Sends a request to JetStream. An error has its code, if the server named one.
    async fn request(
        &self,
        replies: &Replies,
        what: &str,
        path: &str,
        request: Value,
    ) -> Result<Value, (Option<u64>, String)> {
        let silent = |why: &str| (None, format!("no answer to {what}.{path}: {why}"));
        let mut expected = replies.expect();
        let body = if request.is_null() { String::new() } else { request.to_string() };
        let sent =
            self.client.publish_with_reply(format!("$JS.API.{what}.{path}"), expected.subject.clone(), body.into());
        sent.await.map_err(|error| silent(&error.to_string()))?;
        let answer = timeout(REPLY_TIMEOUT, expected.wait()).await.ok().flatten();
        let answer = answer.ok_or_else(|| silent("not in time"))?;
        if answer.status.is_some() {
            return Err(silent("no server of the stream is there"));
        }
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| silent("it is not to be understood"))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err((error["err_code"].as_u64(), format!("{what}.{path}: {error}"))),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs() * NANOSECONDS
}

/// The bytes of a stream that a new consumer begins before its end, at most, by the average of its messages.
const MOST_AT_THE_START: u64 = 256 << 20;
