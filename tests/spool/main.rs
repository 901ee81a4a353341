//! The spool: what is stored, kept, bounded, sealed and repaired, and uploads from it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/model_disk.rs"]
mod model_disk;

mod bounds;
mod damage;
mod disk_errors;
mod folders;
mod groups;
mod heirs;
mod letters;
mod power_cut;
mod quarantine;
mod sealed_files;
mod sealing;
mod spool_box;
mod spool_world;
mod spooling;
mod store;
mod unusable;
mod uploads;
