//! The registrar as its neighbours see it: requests in, answers, rows and notifications out, on a pretend clock.

mod house;

mod contacts;
mod elsewhere;
mod events;
mod outbound;
mod store;
mod third_party;
