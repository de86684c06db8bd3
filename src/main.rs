//! `isthmus`: reads the command line and runs it.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    isthmus::ctl::run(isthmus::ctl::Cli::parse())
}
