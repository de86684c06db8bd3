//! The messages that size and speed are told by: a registration, a call, and a call as an S-CSCF hands it on.

pub const SAMPLES: [(&str, &[u8]); 3] = [
    ("REGISTER", include_bytes!("../messages/register.dat")),
    ("INVITE", include_bytes!("../messages/invite.dat")),
    ("IMS INVITE", include_bytes!("../messages/ims_invite.dat")),
];
