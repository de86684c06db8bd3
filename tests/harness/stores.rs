//! Stores to test, on both engines.

// Each test is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::mpsc;

use isthmus::store::{Store, StoreConfig};
use sip_ims::ports::{Done, StoreError};

#[path = "postgres.rs"]
pub mod postgres;

/// An empty store that can be opened again and again.
pub struct Subject {
    pub config: StoreConfig,
    _folder: Option<tempfile::TempDir>,
    pub postgres: Option<postgres::Postgres>,
}

impl Subject {
    pub fn sqlite() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        // A name that a URL would have to escape.
        Subject { config: StoreConfig::sqlite(folder.path().join("da ta%?#")), _folder: Some(folder), postgres: None }
    }

    pub fn postgres() -> Subject {
        let postgres = postgres::Postgres::start();
        Subject { config: StoreConfig::postgres(postgres.url()), _folder: None, postgres: Some(postgres) }
    }

    pub fn open(&self) -> Store {
        Store::open(&self.config).unwrap()
    }
}

/// One test for each engine.
macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod sqlite { $(#[test] fn $name() { super::$name(super::Subject::sqlite()) })* }
        mod on_postgres { $(#[test] fn $name() { super::$name(super::Subject::postgres()) })* }
    };
}

pub fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, StoreError> {
    let (done, result) = channel_done();
    call(done);
    result.recv().expect("every call is answered")
}

pub fn channel_done<T: Send + 'static>() -> (Done<T>, mpsc::Receiver<Result<T, StoreError>>) {
    let (sender, receiver) = mpsc::channel();
    // The test may have stopped listening.
    (Box::new(move |result| drop(sender.send(result))), receiver)
}
