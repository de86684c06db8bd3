//! How far a failure response reaches (RFC 5057 §5.1).

use crate::method::Method;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Impact {
    /// No failure, or not a final one.
    None,
    /// This request failed, all else stands.
    Transaction,
    /// The call or subscription is over; others in the dialog are not.
    Usage,
    /// The dialog is over with all that is in it.
    Dialog,
}

impl Impact {
    /// For a request in a dialog. A time-out counts as 408.
    pub fn of(method: Method, status: u16) -> Impact {
        match status {
            ..=299 => Impact::None,
            // RFC 5057 §5.1 (8): no such transaction to cancel says nothing of the call.
            481 if method == Method::Cancel => Impact::Transaction,
            404 | 410 | 416 | 482 | 483 | 484 | 485 | 502 | 604 => Impact::Dialog,
            // RFC 3261 §12.2.1.2 has 408 end the dialog, RFC 5057 §5.2 the usage.
            408 | 480 | 481 | 489 => Impact::Usage,
            // Only where the request was what the usage lives by (note 3).
            405 | 501 if matches!(method, Method::Invite | Method::Notify | Method::Subscribe) => Impact::Usage,
            _ => Impact::Transaction,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_of_rfc_5057() {
        for (status, impact) in [
            (100, Impact::None),
            (200, Impact::None),
            (401, Impact::Transaction),
            (404, Impact::Dialog),
            (405, Impact::Usage),
            (481, Impact::Usage),
            (486, Impact::Transaction),
            (489, Impact::Usage),
            (499, Impact::Transaction),
            (500, Impact::Transaction),
            (502, Impact::Dialog),
            (604, Impact::Dialog),
        ] {
            assert_eq!(Impact::of(Method::Notify, status), impact, "{status}");
        }
        assert_eq!(Impact::of(Method::Info, 405), Impact::Transaction);
        assert_eq!(Impact::of(Method::Cancel, 481), Impact::Transaction);
    }
}
