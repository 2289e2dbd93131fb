//! What is measured: a direct connection, Towline, or a peer.

pub mod peers;
mod setup;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use towline_tls::devcerts::{DevCerts, Validity};

use self::peers::{Carrier, Launch, Peer};
use self::setup::Setup;
use crate::client::{self, Entry, Route};
use crate::link::network::has_congestion;
use crate::place::Stage;
use crate::process::Program;
use crate::swarm::Swarm;
use crate::target::{Addresses, Service};

/// The kernel's congestion controls: Linux's default, and the one that losses do not slow down.
pub const CUBIC: &str = "cubic";
/// See [`CUBIC`]; not every kernel has it.
pub const BBR: &str = "bbr";

/// How long a subject may take from its start to its first tunnel; losses may hit the handshake.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The pause between two attempts to reach a subject that starts.
const START_PAUSE: Duration = Duration::from_millis(20);

/// A peer with everything that is needed to start it: a column of the table.
#[derive(Debug)]
pub struct Subject {
    /// The column's name: the peer's, with `+` and a variant's or a congestion control's.
    pub name: String,
    /// What it is.
    pub peer: &'static Peer,
    /// The congestion control of the kernel's TCP while it is measured over a link.
    pub tcp: &'static str,
    /// What exactly is measured, in one line.
    pub description: String,
    /// Flags for both programs, of Towline only.
    flags: Vec<String>,
    binaries: PathBuf,
    certs: TempDir,
}

/// The processes of a subject; they are killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// The server, then the agent; none when direct.
    pub programs: Vec<Program>,
    /// How further agents are started, of Towline only.
    pub swarm: Option<Swarm>,
    route: Route,
    at: Addresses,
    _files: TempDir,
}

/// Which subjects are wanted, and where their programs are.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Names, or how names begin; all when there is none.
    pub names: &'a [String],
    /// Towline with other flags, as `NAME=FLAGS`.
    pub variants: &'a [String],
    /// Flags for all programs of Towline.
    pub flags: &'a str,
    /// Whether they are measured over a link.
    pub over_link: bool,
    /// The folder of Towline's programs.
    pub ours: &'a Path,
    /// The folder of the Go reference's programs, when it is not in `peers`.
    pub reference: Option<&'a Path>,
    /// The folder with a folder for each peer, as `make bench-peers` fills it.
    pub peers: Option<&'a Path>,
}

/// The subjects that can be measured.
#[derive(Debug, Default)]
pub struct Found {
    /// In the table's order.
    pub subjects: Vec<Subject>,
    /// Why others cannot be measured, in a line each.
    pub skipped: Vec<String>,
}

/// A subject before its programs are looked for.
struct Candidate {
    name: String,
    peer: &'static Peer,
    tcp: &'static str,
    flags: String,
}

// === impl Subject ===

impl Subject {
    /// Starts the programs and waits until a message comes back through them.
    pub async fn start(&self, stage: &Stage<'_>, target: Addresses) -> Result<Running> {
        let files = tempfile::tempdir()?;
        let setup = Setup::new(self.peer, self.certs.path(), files.path(), target)?;
        let start = |launch: &Launch, role: &str| {
            let mut arguments = setup.prepare(launch)?;
            arguments.extend_from_slice(&self.flags);
            let (name, path) = (format!("{}-{role}", self.peer.name), &launch.program);
            Program::start(name, &self.binaries.join(path), &arguments, files.path())
        };
        let (route, at) = (setup.route(), setup.entries());
        let mut programs = Vec::new();
        if let [server, agent] = &*self.peer.launch {
            let deadline = Instant::now() + START_LIMIT;
            programs.push(start(server, "server")?);
            // An agent that finds no server waits before it dials again: start the server first.
            eventually(deadline, &mut programs, async || {
                TcpStream::connect(setup.listens()).await?;
                Ok(())
            })
            .await?;
            programs.push(stage.far(|| start(agent, "agent"))?);
            let target = at[Service::Echo.index()];
            eventually(deadline, &mut programs, async || {
                client::exchange(&mut Entry { route, target }.open().await?).await
            })
            .await?;
        }
        let swarm = self.peer.is_ours().then(|| Swarm {
            server: setup.quic(),
            certs: self.certs.path().to_owned(),
            flags: self.flags.clone(),
        });
        Ok(Running {
            programs,
            swarm,
            route,
            at,
            _files: files,
        })
    }
}

// === impl Running ===

impl Running {
    /// How clients reach a service of the target.
    pub fn entry(&self, service: Service) -> Entry {
        Entry {
            route: self.route,
            target: self.at[service.index()],
        }
    }

    /// Kills the programs and waits for their end, so that the next cell has the machine alone.
    pub async fn stop(self) -> Result<()> {
        for program in self.programs {
            program.stop().await?;
        }
        Ok(())
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Looks for the programs of all subjects that are wanted.
    pub async fn find(&self) -> Result<Found> {
        let mut found = Found::default();
        for candidate in self.chosen()? {
            let name = candidate.name.clone();
            match self.look(candidate).await? {
                Ok(subject) => found.subjects.push(subject),
                Err(why) => found.skipped.push(format!("{name}: {why}")),
            }
        }
        Ok(found)
    }

    /// The subject, or why it is left out.
    async fn look(&self, candidate: Candidate) -> Result<Result<Subject, String>> {
        let Candidate {
            name,
            peer,
            tcp,
            flags,
        } = candidate;
        let Some(binaries) = self.folder(peer) else {
            return Ok(Err("no folder was named".to_owned()));
        };
        if self.over_link && !has_congestion(tcp) {
            return Ok(Err(format!("the kernel has no {tcp}")));
        }
        let mut paths = peer
            .launch
            .iter()
            .map(|launch| binaries.join(&launch.program));
        if let Some(path) = paths.find(|path| !path.is_file()) {
            if peer.must_work() {
                bail!("{} is not there: build it first", path.display());
            }
            let file = path.file_name().unwrap_or_default().display();
            return Ok(Err(format!("{file} is not installed")));
        }
        let mut description = version::describe(peer, &binaries, &flags).await?;
        if self.over_link && peer.carrier == Carrier::Tcp {
            description += &format!("; the kernel's {tcp} on both sides");
        }
        let certs = tempfile::tempdir()?;
        DevCerts::generate(Validity::days(1))?.write(certs.path())?;
        Ok(Ok(Subject {
            name,
            peer,
            tcp,
            description,
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            binaries,
            certs,
        }))
    }

    fn folder(&self, peer: &Peer) -> Option<PathBuf> {
        if peer.must_work() {
            return Some(self.ours.to_owned());
        }
        let own = self.reference.filter(|_| peer.folder == "reference");
        let peers = || self.peers.map(|peers| peers.join(&peer.folder));
        own.map(Path::to_owned).or_else(peers)
    }

    /// All subjects that one of the names fits. A name fits its subject with all variants; a name
    /// that no subject has fits all that begin with it.
    fn chosen(&self) -> Result<Vec<Candidate>> {
        let mut all = self.candidates()?;
        let names: Vec<String> = all.iter().map(|one| one.name.clone()).collect();
        let exact = |wish: &str, name: &str| {
            let rest = name.strip_prefix(wish);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
        };
        let fits = |wish: &str, name: &str| {
            let known = names.iter().any(|other| exact(wish, other));
            exact(wish, name) || !known && name.starts_with(wish)
        };
        for wish in self.names {
            let known = names.iter().any(|name| fits(wish, name));
            ensure!(known, "no subject is called {wish:?}: {}", names.join(", "));
        }
        let wanted = |name: &str| self.names.iter().any(|wish| fits(wish, name));
        all.retain(|one| self.names.is_empty() || wanted(&one.name));
        Ok(all)
    }

    /// All subjects, in the table's order.
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut all = Vec::new();
        for peer in Peer::all() {
            let mut add = |variant: &str, tcp: &'static str, flags: &str| {
                let name = match variant {
                    "" => peer.name.clone(),
                    variant => format!("{}+{variant}", peer.name),
                };
                let given = if peer.is_ours() { self.flags } else { "" };
                let flags = [&*peer.flags, given, flags].join(" ");
                all.push(Candidate {
                    name,
                    peer,
                    tcp,
                    flags: flags.trim().to_owned(),
                });
            };
            match peer.carrier {
                // A link has a maximum packet size of its own.
                Carrier::SmallQuic if self.over_link => {}
                Carrier::Tcp if self.over_link => {
                    add(CUBIC, CUBIC, "");
                    add(BBR, BBR, "");
                }
                _ => add("", CUBIC, ""),
            }
            if peer.name == peers::TOWLINE {
                for variant in self.variants {
                    let pair = variant.split_once('=');
                    let (name, flags) = pair.context("a variant is NAME=FLAGS")?;
                    add(name, CUBIC, flags);
                }
            }
        }
        Ok(all)
    }
}

async fn eventually(
    deadline: Instant,
    programs: &mut [Program],
    mut attempt: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    loop {
        let Err(error) = attempt().await else {
            return Ok(());
        };
        for program in &mut *programs {
            program.check_running()?;
        }
        if Instant::now() >= deadline {
            let logs: Vec<String> = programs.iter().map(Program::last_line).collect();
            let logs = logs.join("; ");
            return Err(error).with_context(|| format!("not ready within {START_LIMIT:?}; {logs}"));
        }
        sleep(START_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str], variants: &[&str], over_link: bool) -> Result<Vec<String>> {
        let [names, variants] = [names, variants].map(|texts| {
            let texts = texts.iter().map(|text| (*text).to_owned());
            texts.collect::<Vec<_>>()
        });
        let wanted = Wanted {
            names: &names,
            variants: &variants,
            flags: "",
            over_link,
            ours: Path::new("/nowhere"),
            reference: None,
            peers: None,
        };
        let chosen = wanted.chosen()?.into_iter();
        Ok(chosen.map(|one| one.name).collect())
    }

    #[test]
    fn over_a_link_tcp_is_measured_with_each_congestion_control() {
        let all = names(&["towline", "ref", "frp"], &["x=--a b"], true).unwrap();
        let expected = [
            "towline",
            "towline+x",
            "reference",
            "frp-quic",
            "frp-tls+cubic",
            "frp-tls+bbr",
        ];
        assert_eq!(all, expected);
        assert_eq!(names(&["chisel+bbr"], &[], true).unwrap(), ["chisel+bbr"]);
    }

    #[test]
    fn on_loopback_each_peer_is_a_subject() {
        let all = names(&[], &[], false).unwrap();
        assert_eq!(
            all,
            Peer::all()
                .iter()
                .map(|peer| peer.name.clone())
                .collect::<Vec<_>>()
        );
        assert_eq!(names(&["towline"], &[], false).unwrap(), ["towline"]);
        assert!(names(&["towlime"], &[], false).is_err());
        assert!(names(&[], &["no flags"], false).is_err());
    }

    #[tokio::test]
    async fn a_peer_that_is_not_installed_is_skipped_and_ours_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["chisel", "towline"].map(|name| [name.to_owned()]);
        let wanted = |names| Wanted {
            names,
            variants: &[],
            flags: "",
            over_link: false,
            ours: dir.path(),
            reference: None,
            peers: Some(dir.path()),
        };
        let found = wanted(&theirs).find().await.unwrap();
        assert!(found.subjects.is_empty());
        assert_eq!(found.skipped, ["chisel: chisel is not installed"]);
        let missing = wanted(&ours).find().await;
        assert!(missing.is_err());
    }
}
