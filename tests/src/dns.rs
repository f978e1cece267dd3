//! A stand-in for the DNS server of a node, as slow as a test wants.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::agent::AgentBuilder;

/// Where resolvers expect it.
const PORT: u16 = 53;
/// How soon its thread ends when it is dropped.
const LOOK: Duration = Duration::from_millis(100);
/// The length of a message's header.
const HEADER: usize = 12;
/// An address record, and one of IPv6.
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// In the header: a response, of a server that recurses, as was desired.
const RESPONSE: u16 = 0x8180;
/// In the header: there is no such name.
const NO_SUCH_NAME: u16 = 3;

/// A DNS server that knows one name, which is at 127.0.0.1. It stops when it is dropped.
///
/// Resolvers ask at port 53 only, so it wants a network of its own
/// ([`Node::with_network`](crate::node::Node::with_network)).
pub struct Dns {
    folder: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Dns {
    /// Starts one in the network of the calling thread. Each answer takes `delay`.
    ///
    /// # Panics
    ///
    /// When something else listens there.
    pub fn start(name: &str, delay: Duration) -> Self {
        Self::start_behind(&[], name, delay)
    }

    /// The same, and resolvers ask the servers at these addresses of the loopback first, none of
    /// which answers.
    ///
    /// # Panics
    ///
    /// When something else listens there.
    pub fn start_behind(silent: &[Ipv4Addr], name: &str, delay: Duration) -> Self {
        let bind = |address| UdpSocket::bind((address, PORT)).expect("port 53 in this network");
        let silent: Vec<_> = silent.iter().copied().map(|at| (at, bind(at))).collect();
        let own = Ipv4Addr::LOCALHOST;
        let socket = bind(own);
        socket
            .set_read_timeout(Some(LOOK))
            .expect("a limit for reading");
        let folder = tempfile::tempdir().expect("a folder for a resolver's files");
        let servers = silent.iter().map(|(address, _)| *address).chain([own]);
        let lines: String = servers.map(|it| format!("nameserver {it}\n")).collect();
        for (file, content) in [("resolv.conf", &*lines), ("nsswitch.conf", "hosts: dns\n")] {
            std::fs::write(folder.path().join(file), content).expect("a resolver's file");
        }
        let (asked, stop) = (Arc::default(), Arc::default());
        let server = Server {
            socket,
            name: name.to_owned(),
            delay,
            asked: Arc::clone(&asked),
        };
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            // Nobody reads from these.
            let _silent = silent;
            server.run(&stopped);
        });
        Self {
            folder,
            asked,
            stop,
        }
    }

    /// Has an agent ask this server. The files that say so are put over the machine's in a mount
    /// namespace of the agent's own, which ends with it.
    #[must_use]
    pub fn serve(&self, agent: AgentBuilder) -> AgentBuilder {
        let folder = self.folder.path().display();
        let script = format!(
            "for file in resolv.conf nsswitch.conf; do \
             mount --bind {folder}/$file /etc/$file; done; exec \"$@\""
        );
        agent.through(["unshare", "--mount", "sh", "-ec", &script, "sh"])
    }

    /// What it was asked for, oldest first: `A eks-auth.example`, say.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Server {
    socket: UdpSocket,
    name: String,
    delay: Duration,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn run(&self, stop: &AtomicBool) {
        let mut message = [0; 512];
        while !stop.load(Ordering::Relaxed) {
            // Fails when nobody has asked for a moment.
            let Ok((length, resolver)) = self.socket.recv_from(&mut message) else {
                continue;
            };
            let Some(question) = Question::read(&message[..length]) else {
                continue;
            };
            let kind = match question.kind {
                TYPE_A => "A",
                TYPE_AAAA => "AAAA",
                _ => "other",
            };
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(format!("{kind} {}", question.name));
            drop(asked);
            let answer = question.answer(&self.name);
            // Others do not wait for this one.
            let socket = self.socket.try_clone().expect("a socket for the answer");
            let delay = self.delay;
            thread::spawn(move || answer_later(&socket, &answer, resolver, delay));
        }
    }
}

fn answer_later(socket: &UdpSocket, answer: &[u8], resolver: SocketAddr, delay: Duration) {
    thread::sleep(delay);
    // The resolver may have gone.
    let _: io::Result<usize> = socket.send_to(answer, resolver);
}

/// The one question of a message (RFC 1035, 4.1.2).
struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// As it came: name, type and class.
    bytes: Vec<u8>,
}

impl Question {
    fn read(message: &[u8]) -> Option<Self> {
        let id = [*message.first()?, *message.get(1)?];
        let mut labels = Vec::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(str::from_utf8(message.get(at..at + length)?).ok()?);
            at += length;
        }
        let kind = [*message.get(at)?, *message.get(at + 1)?];
        Some(Self {
            id,
            name: labels.join("."),
            kind: u16::from_be_bytes(kind),
            bytes: message.get(HEADER..at + 4)?.to_vec(),
        })
    }

    /// What a server says that knows `known` only.
    fn answer(&self, known: &str) -> Vec<u8> {
        let is_known = self.name == known;
        let has_address = is_known && self.kind == TYPE_A;
        let flags = RESPONSE | if is_known { 0 } else { NO_SUCH_NAME };
        let mut answer = self.id.to_vec();
        // The flags, then the number of questions, of answers, and of two kinds that there are none
        // of.
        for number in [flags, 1, u16::from(has_address), 0, 0] {
            answer.extend(number.to_be_bytes());
        }
        answer.extend(&self.bytes);
        if has_address {
            // The name (a pointer to the question's), type A, class IN, 60 seconds to live, 4
            // bytes.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(Ipv4Addr::LOCALHOST.octets());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for the A record of `a.example`, as a resolver does.
    const A_EXAMPLE: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01";

    #[test]
    fn a_known_name_gets_its_address_and_another_name_gets_nxdomain() {
        let question = Question::read(A_EXAMPLE).unwrap();
        assert_eq!((&*question.name, question.kind), ("a.example", TYPE_A));
        let known = question.answer("a.example");
        assert_eq!(known[..8], *b"\x12\x34\x81\x80\x00\x01\x00\x01");
        assert!(known.ends_with(&[127, 0, 0, 1]));
        let unknown = question.answer("b.example");
        assert_eq!(unknown[..8], *b"\x12\x34\x81\x83\x00\x01\x00\x00");
        assert_eq!(unknown[HEADER..], A_EXAMPLE[HEADER..]);
    }

    #[test]
    fn a_truncated_question_is_ignored() {
        for length in 0..A_EXAMPLE.len() {
            assert!(Question::read(&A_EXAMPLE[..length]).is_none(), "{length}");
        }
    }
}
