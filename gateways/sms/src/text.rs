//! Alphabets of TS 23.038.
