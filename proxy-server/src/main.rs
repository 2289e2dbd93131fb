//! Parses the command line and runs what it asks for.

use std::process::ExitCode;

use proxy_server::cli::{Cli, Command};
use proxy_server::config::{self, ServeArgs};
use proxy_server::server;
use towline_service::allocator::Allocator;
use towline_service::runtime::{self, RunError, StartError};
use towline_service::shutdown::Shutdown;
use towline_service::{probe, telemetry};
use towline_tls::devcerts::{DevCerts, Validity};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    runtime::run("proxy-server", async {
        match Cli::parse() {
            Cli::Serve(args) => serve(*args).await,
            Cli::Command(Command::DevCerts { out, days }) => {
                let certs = DevCerts::generate(Validity::days(days)).map_err(StartError::new)?;
                Ok(certs.write(&out).map_err(StartError::new)?)
            }
            Cli::Command(Command::Healthcheck { admin_listen }) => Ok(probe::livez(admin_listen)?),
        }
    })
}

async fn serve(args: ServeArgs) -> Result<(), RunError> {
    let config = config::load(&args);
    if args.daemon.check_config {
        return Ok(config.map(drop).map_err(StartError::new)?);
    }
    let log = telemetry::init(&args.telemetry).map_err(StartError::new)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(StartError::new)?;
    let bound =
        server::bind(&config.map_err(StartError::new)?, Some(&log)).map_err(StartError::new)?;
    bound.run(shutdown).await;
    Ok(())
}
