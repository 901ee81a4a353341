//! sophon-uplink: from the recognizer's ring in shared memory to the owner's cloud.
