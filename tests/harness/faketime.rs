//! The server under a clock that libfaketime sets.

/// The system's libfaketime, and the time that it tells from the server's start on: `x30` makes it thirty times as fast.
pub fn under(time: &str) -> Vec<String> {
    let library = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|e| e.path().join("faketime/libfaketime.so.1"));
    let library = library.into_iter().find(|p| p.exists()).expect("libfaketime is installed (tests/run does)");
    [
        "env",
        &format!("LD_PRELOAD={}", library.display()),
        &format!("FAKETIME=@{time}"),
        // Timers and time-outs stay as they are.
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "TZ=UTC",
    ]
    .map(str::to_owned)
    .into()
}
