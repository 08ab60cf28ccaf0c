//! Alert rules of docs/monitoring/, checked and tested by Prometheus.

use std::process::Command;

use crate::support::commands::finish;

tests! {
    prometheus_takes_the_alerts_and_they_come_when_they_should: blocking [PROMTOOL];
}

fn prometheus_takes_the_alerts_and_they_come_when_they_should() {
    for words in [
        ["check", "rules", "docs/monitoring/alerts.yaml"],
        ["test", "rules", "docs/monitoring/alerts.test.yaml"],
    ] {
        let mut promtool = Command::new("promtool");
        promtool.args(words).current_dir(env!("CARGO_MANIFEST_DIR"));

        let ended = finish(promtool, b"");

        assert!(ended.with_code(0).contains("SUCCESS"), "{ended:?}");
    }
}
