//! Raw clients over a socket pair: every byte is payload, and a refusal has no words.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::Reason;

use super::{DESC, TARGET};
use crate::fixture::Step::{self, *};
use crate::fixture::{Event, Fixture, take_events, within};
use crate::frontend::{Frontend, Setting, SettingError};

fn raw(target: Option<&str>) -> Result<Arc<dyn Frontend>, SettingError> {
    let setting = |value: &str| Setting {
        key: TARGET.to_owned(),
        value: value.to_owned(),
    };
    let settings: Vec<_> = target.map(setting).into_iter().collect();
    (DESC.build)(&settings)
}

fn access_line() -> Event {
    let mut events = take_events();
    events.retain(Event::is_access);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_as_they_come_to_the_upstream_or_to_the_target() {
    let table = [
        (None, AgentKind::Passthrough, "upstream:0"),
        (Some("host.test:22"), AgentKind::Connect, "host.test:22"),
    ];
    // An end of file before the answer ends one half only.
    let steps: [Step; 2] = [Accept, AcceptAfter(3)];
    for (target, kind, to) in table {
        for step in steps {
            let fixture = Fixture::new();
            let _session = fixture.agent(kind);
            fixture.plan.then(&[step]);
            let mut client = fixture.serve(raw(target).unwrap());
            client.write_all(b"payload").await.unwrap();
            client.shutdown().await.unwrap();
            let mut text = String::new();
            within(client.read_to_string(&mut text)).await.unwrap();
            assert_eq!(text, "payload", "{to}, {step:?}");
            fixture.clients_gone().await;
            let head = fixture.plan.asked()[0].head.clone().unwrap();
            assert_eq!(head.ask.to_string(), to);
            let line = access_line();
            assert_eq!(line.field("to"), to);
            assert_eq!(line.field("outcome"), "finished");
            assert_eq!(line.field("bytes_to_target"), "7");
            fixture.assert_empty();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_end_without_a_byte() {
    // The agents, their steps, and what the log says.
    let table: [(Option<AgentKind>, &[Step], u16, Reason); 3] = [
        (None, &[], 503, Reason::NoAgent),
        (Some(AgentKind::Connect), &[], 503, Reason::NoAgent),
        (
            Some(AgentKind::Passthrough),
            &[Refuse(Reason::Refused)],
            502,
            Reason::Refused,
        ),
    ];
    for (kind, steps, status, reason) in table {
        let fixture = Fixture::new();
        let _session = kind.map(|kind| fixture.agent(kind));
        fixture.plan.then(steps);
        let mut client = fixture.serve(raw(None).unwrap());
        let mut bytes = Vec::new();
        within(client.read_to_end(&mut bytes)).await.unwrap();
        assert!(bytes.is_empty());
        fixture.clients_gone().await;
        let line = access_line();
        assert_eq!(line.field("status"), status.to_string());
        assert_eq!(line.field("outcome"), reason.label());
        assert_eq!(line.field("to"), "upstream:0");
    }
}

#[test]
fn the_target_is_checked() {
    for target in ["", "host.test", "host.test:0", "host.test:x"] {
        let error = raw(Some(target)).unwrap_err();
        assert_eq!(error.key, TARGET, "{target}");
    }
}
