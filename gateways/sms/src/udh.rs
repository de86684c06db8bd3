//! User data headers (TS 23.040 §9.2.3.24).
