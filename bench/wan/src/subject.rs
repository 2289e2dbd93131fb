//! What is measured over the link, and how its programs are started on both sides of it.
//!
//! All programs come from towline-bench as they are there, where every address is a loopback one:
//! agents run on a far side whose 127.0.0.1 is the near side's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use towline_bench::client::Route;
use towline_bench::subject::{Kind, Program, Running as Programs, Subject as Installed};
use towline_bench::target::Addresses;

use crate::kernel;
use crate::target::Target;
use crate::wan::{Side, Wan};

/// The kernel's congestion controls: Linux's default, and the one that losses do not stop.
pub const CUBIC: &str = "cubic";
/// See [`CUBIC`]; not every kernel has it.
pub const BBR: &str = "bbr";

/// How long any subject may take from its start to its first tunnel; losses may hit the handshake.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What is measured, in the table's order.
const KINDS: [Kind; 9] = [
    Kind::Direct,
    Kind::Towline,
    Kind::Reference,
    Kind::Konnectivity,
    Kind::FrpQuic,
    Kind::FrpTls,
    Kind::Chisel,
    Kind::RatholeTls,
    Kind::RatholePlain,
];

/// What can be measured on this machine.
#[derive(Debug)]
pub struct Subject {
    /// The column's title.
    pub name: String,
    /// What exactly is measured, in one line.
    pub description: String,
    /// The congestion control of the kernel's TCP on both sides while it is measured.
    pub tcp: &'static str,
    programs: Installed,
}

/// Where programs are.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// proxy-server and proxy-agent.
    pub ours: &'a Path,
    /// quic-server and quic-client, when they are not with the other peers.
    pub reference: Option<&'a Path>,
    /// A folder for each peer, as `make bench-peers` installs them.
    pub peers: Option<&'a Path>,
}

/// Who is asked for, and who of them is there.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that can be measured, in the table's order.
    pub subjects: Vec<Subject>,
    /// Why others cannot, in a line each.
    pub skipped: Vec<String>,
}

/// Which subjects are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Beginnings of their names; all when there is none.
    pub names: &'a [String],
    /// Ours once more, with other flags: `NAME=--flag value`.
    pub variants: &'a [String],
}

/// A subject that there could be.
#[derive(Debug)]
struct Candidate<'a> {
    kind: Kind,
    name: String,
    tcp: &'static str,
    flags: &'a str,
}

/// A subject's processes; they are killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    route: Route,
    /// Where clients find the target's first listener behind the route.
    orders: SocketAddr,
    programs: Programs,
}

// === impl Subject ===

impl Subject {
    /// Which one, whatever carries it.
    pub fn kind(&self) -> Kind {
        self.programs.kind
    }

    /// Starts the programs and waits until a message comes back through them. The calling thread
    /// is on the near side.
    ///
    /// # Errors
    /// When that does not happen in time; the text has the end of the programs' logs.
    pub async fn start(&self, wan: &Wan, target: &Target) -> Result<Running> {
        // Only two of the services are asked for: orders, and messages while it starts.
        let (orders, echo) = (target.at(0), target.echo());
        let services = Addresses::from([orders, orders, echo, orders]);
        let elsewhere = |launch: &(dyn Fn() -> Result<Program> + Sync)| on_far_side(wan, launch);
        let programs = self.programs.start_apart(services, START_LIMIT, elsewhere);
        let programs = programs.await?;
        Ok(Running {
            route: programs.route,
            orders: programs.at.source,
            programs,
        })
    }
}

// === impl Folders ===

impl Folders<'_> {
    fn of(&self, kind: Kind) -> Option<PathBuf> {
        let Some(folder) = kind.folder() else {
            return Some(self.ours.to_owned());
        };
        let own = self.reference.filter(|_| kind == Kind::Reference);
        let peers = || self.peers.map(|peers| peers.join(folder));
        own.map(Path::to_owned).or_else(peers)
    }
}

// === impl Found ===

impl Found {
    /// Looks for all subjects that are asked for: the kernel's TCP, ours, ours with other flags,
    /// and the peers.
    ///
    /// # Errors
    /// When programs of ours are missing, or nobody has one of the names.
    pub async fn look(folders: &Folders<'_>, wanted: Wanted<'_>) -> Result<Self> {
        let (mut found, all) = (Self::default(), Candidate::all(wanted.variants)?);
        for wish in wanted.names {
            let known = all.iter().any(|one| one.name.starts_with(wish));
            let names = || all.iter().map(|one| &*one.name).collect::<Vec<_>>();
            ensure!(known, "no subject is called {wish:?}: {:?}", names());
        }
        for candidate in all {
            if wanted.has(&candidate.name) {
                found.add(candidate, folders).await?;
            }
        }
        Ok(found)
    }

    async fn add(&mut self, candidate: Candidate<'_>, folders: &Folders<'_>) -> Result<()> {
        let Candidate {
            kind,
            name,
            tcp,
            flags,
        } = candidate;
        let Some(folder) = folders.of(kind) else {
            self.skipped.push(format!("{name}: no folder was named"));
            return Ok(());
        };
        if !kernel::has_congestion(tcp) {
            self.skipped
                .push(format!("{name}: the kernel has no {tcp}"));
            return Ok(());
        }
        let mut programs = Installed::new(kind, &folder)?;
        programs.flags = flags.split_whitespace().map(str::to_owned).collect();
        if let Some(path) = programs.missing() {
            if kind.must_work() {
                bail!("{} is not there: build it first", path.display());
            }
            let file = path.file_name().unwrap_or_default().display();
            self.skipped
                .push(format!("{name}: {file} is not installed"));
            return Ok(());
        }
        let about = programs.describe().await?;
        let description = if over_quic(kind) {
            about
        } else {
            format!("{about}; the kernel's {tcp} on both sides")
        };
        self.subjects.push(Subject {
            name,
            description,
            tcp,
            programs,
        });
        Ok(())
    }
}

// === impl Candidate ===

impl<'a> Candidate<'a> {
    /// All there could be, in the table's order.
    fn all(variants: &'a [String]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for kind in KINDS {
            if over_quic(kind) {
                all.push(Self::new(kind, "", CUBIC, ""));
            } else {
                // What carries it matters, and stands in the name.
                all.extend([CUBIC, BBR].map(|tcp| Self::new(kind, tcp, tcp, "")));
            }
            if kind == Kind::Towline {
                for variant in variants {
                    let pair = variant.split_once('=');
                    let (name, flags) = pair.context("a variant is NAME=FLAGS")?;
                    all.push(Self::new(kind, name, CUBIC, flags));
                }
            }
        }
        Ok(all)
    }

    fn new(kind: Kind, how: &str, tcp: &'static str, flags: &'a str) -> Self {
        let name = match how {
            "" => kind.name().to_owned(),
            how => format!("{}+{how}", kind.name()),
        };
        Self {
            kind,
            name,
            tcp,
            flags,
        }
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    fn has(&self, name: &str) -> bool {
        let mut names = self.names.iter();
        self.names.is_empty() || names.any(|wish| name.starts_with(wish))
    }
}

// === impl Running ===

impl Running {
    /// Opens a connection to the target's first listener, through the subject.
    ///
    /// # Errors
    /// When it is refused or takes too long.
    pub async fn open(&self) -> Result<TcpStream> {
        self.route.open(self.orders).await
    }

    /// Kills the programs and waits for their end.
    ///
    /// # Errors
    /// When one had ended before.
    pub async fn stop(self) -> Result<()> {
        self.programs.stop().await
    }
}

/// Whether the kernel's TCP is only between programs of one side.
fn over_quic(kind: Kind) -> bool {
    matches!(kind, Kind::Towline | Kind::Reference | Kind::FrpQuic)
}

/// Starts a program on the far side that belongs to the calling thread's runtime.
fn on_far_side(wan: &Wan, start: impl FnOnce() -> Result<Program> + Send) -> Result<Program> {
    let runtime = Handle::current();
    wan.namespace(Side::Far).run(|| {
        let _entered = runtime.enter();
        start()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The names of those that are there, and why others are not.
    async fn look(names: &[&str], variants: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
        let dir = tempfile::tempdir()?;
        for program in [
            "proxy-server",
            "proxy-agent",
            "peers/frp/frps",
            "peers/frp/frpc",
            "peers/reference/quic-server",
            "peers/reference/quic-client",
        ] {
            let path = dir.path().join(program);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            symlink("/bin/true", path)?;
        }
        let folders = Folders {
            ours: dir.path(),
            reference: None,
            peers: Some(&dir.path().join("peers")),
        };
        let [names, variants] = [names, variants].map(|texts| {
            texts
                .iter()
                .map(|one| (*one).to_owned())
                .collect::<Vec<_>>()
        });
        let wanted = Wanted {
            names: &names,
            variants: &variants,
        };
        let found = Found::look(&folders, wanted).await?;
        let subjects = found.subjects.into_iter().map(|subject| subject.name);
        Ok((subjects.collect(), found.skipped))
    }

    #[tokio::test]
    async fn what_quic_carries_is_there_once_and_what_tcp_carries_for_each_congestion_control() {
        let (there, skipped) = look(&["towline", "ref", "frp"], &["cubic=--x y"])
            .await
            .unwrap();
        let mut all = vec![
            "towline",
            "towline+cubic",
            "reference",
            "frp-quic",
            "frp-tls+cubic",
        ];
        if kernel::has_congestion(BBR) {
            all.push("frp-tls+bbr");
        }
        assert_eq!(there, all);
        assert_eq!(all.len() + skipped.len(), 6, "{skipped:?}");
    }

    #[tokio::test]
    async fn a_peer_that_is_not_installed_is_skipped_and_a_name_that_nobody_has_is_refused() {
        let (there, skipped) = look(&["chisel+cubic"], &[]).await.unwrap();
        assert!(there.is_empty());
        assert_eq!(skipped, ["chisel+cubic: chisel is not installed"]);
        for wrong in [
            look(&["towlime"], &[]).await,
            look(&[], &["no flags"]).await,
        ] {
            assert!(wrong.is_err());
        }
    }
}
