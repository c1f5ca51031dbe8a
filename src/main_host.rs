//! The program for hosts, `hallpass-host`: everything is in the library.

fn main() -> std::process::ExitCode {
    hallpass::cli::run_host()
}
