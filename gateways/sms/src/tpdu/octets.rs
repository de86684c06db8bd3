//! Octets, read from the front.

use super::Broken;

#[derive(Clone, Copy, Debug)]
pub struct Octets<'a>(pub &'a [u8]);

impl<'a> Octets<'a> {
    /// `what` names the element for the error.
    pub fn take(&mut self, what: &'static str) -> Result<u8, Broken> {
        let (first, rest) = self.0.split_first().ok_or(Broken::Short(what))?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Broken::Short(what))?;
        self.0 = rest;
        Ok(*taken)
    }
}
