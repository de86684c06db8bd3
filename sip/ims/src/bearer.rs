//! Other ways to and from a user than SIP: networks that take a text for whoever has an address in them, and bring texts of theirs.

use std::sync::Arc;

use crate::user::User;

/// A text for one user.
#[derive(Clone, Debug)]
pub struct Text {
    pub to: Arc<User>,
    /// The sender, as a SIP URI.
    pub from: Box<str>,
    pub text: String,
}

/// What became of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// The user's server has it, and answers for it from now on.
    Taken,
    /// It could not be handed over, or nobody knows whether it was. The same again may be taken.
    Later,
    /// The user's server will not have it.
    Refused,
}

/// A network besides SIP. What it takes is as good as delivered; what it does not stays with the caller.
pub trait Bearer: Send + Sync {
    /// Whether the user has an address in it.
    fn reaches(&self, user: &User) -> bool;

    /// Never blocks. `done` runs once, from any thread, maybe inside the call; without an answer it gets [`Carried::Later`].
    fn carry(&self, text: Text, done: Box<dyn FnOnce(Carried) + Send>);
}

/// A text of whoever has this address in the network, which the network has proved.
#[derive(Clone, Debug)]
pub struct Heard {
    /// In the bearer's own form, without a device.
    pub from: Box<str>,
    /// A SIP URI of our domain.
    pub to: Box<str>,
    pub text: String,
    /// The same for the same text sent again; at most 60 characters.
    pub key: String,
}

/// Why a text is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unheard {
    /// No user of ours has that address, or none with a number.
    Stranger,
    /// There is no way to that address.
    NoRoute,
    TooLong,
    /// Later it may do.
    Busy,
}

/// What takes the texts that users send over a bearer.
pub trait Listener: Send + Sync {
    /// Never blocks. `done` runs once, from any thread, when the text cannot be lost any more.
    fn heard(&self, text: Heard, done: Box<dyn FnOnce(Result<(), Unheard>) + Send>);
}
