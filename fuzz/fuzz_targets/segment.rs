//! Any text through segmentation and back: nothing is lost, everything fits.

#![no_main]

use gw_sms::segment::{Content, Layout, split};
use gw_sms::text::Languages;
use gw_sms::udh::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u16, bool, bool)| {
    let (text, reference, word, national) = input;
    let reference = if word { Reference::Word(reference) } else { Reference::Byte(reference as u8) };
    let languages = if national { Languages::ALL } else { Languages::NONE };
    let Ok(segments) = split(Content::Text(text), &Layout { languages, ..Layout::new(reference, 255) }) else { return };
    let mut joined = String::new();
    for segment in &segments {
        assert!(segment.user_data.fits());
        joined.push_str(&segment.user_data.text(segment.data_coding.alphabet()).expect("text"));
    }
    assert_eq!(joined, text);
});
