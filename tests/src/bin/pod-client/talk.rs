//! Bytes as they are, in both directions.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
};

use anyhow::{Context, anyhow};
use serde_json::json;

use crate::{
    print,
    socket::{CREDENTIALS, SocketOptions, error_name},
};

#[derive(clap::Args)]
pub(crate) struct Talk {
    /// Where to connect to.
    #[arg(long, default_value = CREDENTIALS)]
    dst: SocketAddr,
    #[command(flatten)]
    socket: SocketOptions,
    /// The file with what is sent, all of it at once. What comes back is read until the peer
    /// closes.
    #[arg(long)]
    file: PathBuf,
}

impl Talk {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let shown = self.file.display();
        let bytes = fs::read(&self.file).with_context(|| format!("reading {shown}"))?;
        let stream = match self.socket.open(self.dst) {
            Ok(stream) => stream,
            Err(why) => return Ok(print(&json!({ "received": "", "end": error_name(&why) }))?),
        };
        // The peer may answer, and even close, before it has read everything.
        let (sent, (received, end)) = thread::scope(|scope| {
            let sender = scope.spawn(|| (&stream).write_all(&bytes));
            let heard = hear(&stream);
            let sent = sender.join().map_err(|_| anyhow!("a thread panicked"))?;
            anyhow::Ok((sent, heard))
        })?;
        Ok(print(&json!({
            "sent": sent.is_ok(),
            "received": String::from_utf8_lossy(&received),
            "end": end,
        }))?)
    }
}

/// What came, and how it ended: `closed`, or an error's name.
fn hear(mut stream: &TcpStream) -> (Vec<u8>, String) {
    let mut received = Vec::new();
    let end = match stream.read_to_end(&mut received) {
        Ok(_) => error_name(&io::ErrorKind::UnexpectedEof.into()),
        Err(why) => error_name(&why),
    };
    (received, end)
}
