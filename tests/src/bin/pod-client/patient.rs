//! A client that wants its credentials as SDKs do: told to come back, it comes back.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use podcreds_tests::http::client::{Answer, read_answer};
use serde_json::json;

use crate::{
    print,
    request::RequestOptions,
    socket::{CREDENTIALS, SocketOptions, error_name},
    wait_for_end_of_input,
};

/// How long it stays away when nobody says for how long.
const PAUSE: u64 = 1;
/// The time between two looks at a file that is to go.
const LOOK: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Patient {
    /// Where to connect to.
    #[arg(long, default_value = CREDENTIALS)]
    dst: SocketAddr,
    #[command(flatten)]
    socket: SocketOptions,
    #[command(flatten)]
    request: RequestOptions,
    /// How long it goes on asking.
    #[arg(long, default_value_t = 60_000)]
    patience_ms: u64,
    /// Begins when the input ends.
    #[arg(long)]
    on_end_of_input: bool,
    /// Begins when this file is gone.
    #[arg(long, value_name = "FILE")]
    once_gone: Option<PathBuf>,
    /// How long it stays after it has said what it got.
    #[arg(long, default_value_t = 0)]
    stay_ms: u64,
}

impl Patient {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let patience = Duration::from_millis(self.patience_ms);
        let request = self.request.bytes(true)?;
        if self.on_end_of_input {
            wait_for_end_of_input()?;
        }
        while self.once_gone.as_ref().is_some_and(|file| file.exists()) {
            thread::sleep(LOOK);
        }
        let started = Instant::now();
        for tries in 1.. {
            let asked = self.ask(&request);
            let pause = match &asked {
                Ok(answer) if answer.status == 503 => {
                    let retry_after = answer.header("retry-after");
                    retry_after.and_then(|text| text.parse().ok())
                }
                Ok(_) => Some(0),
                Err(_) => None,
            };
            let pause = Duration::from_secs(pause.unwrap_or(PAUSE));
            if pause.is_zero() || started.elapsed() + pause > patience {
                let result = match asked {
                    Ok(answer) => json!({ "status": answer.status, "body": answer.json() }),
                    Err(why) => json!({ "error": error_name(&why) }),
                };
                let (mut result, waited_ms) = (result, started.elapsed().as_millis());
                result["tries"] = json!(tries);
                result["waited_ms"] = json!(waited_ms);
                print(&result)?;
                thread::sleep(Duration::from_millis(self.stay_ms));
                return Ok(());
            }
            thread::sleep(pause);
        }
        Ok(())
    }

    fn ask(&self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = self.socket.open(self.dst)?;
        stream.write_all(request)?;
        read_answer(&mut stream)
    }
}
