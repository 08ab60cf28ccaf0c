//! Retention that is lowered or raised: what phones were promised holds.

use threema_safe_server::retention::{Mode, Retention};

use super::careful_sweep::{DAY, SECOND, remembered, sweep_with, today};
use crate::support::{ID, OTHER_ID, Site, digits, names};

/// Sweeps every ten days, as one of the sweeps that a server makes in this time; nothing may be
/// refused. Two more phones renew their backups. Returns the other names that are left.
async fn sweep_on(site: &Site, retention: Retention, from: u32, until: u32) -> Vec<String> {
    let others = [1, 2].map(digits);
    for day in (from..until).step_by(10).chain([until]) {
        site.swept_at(today() + DAY * day);
        for id in &others {
            site.place_backup(id, &[7; 41], today() + DAY * day);
        }
        let report = sweep_with(site, retention, today() + DAY * day, Mode::Serve).await;
        assert_eq!(report.refused, None);
    }
    let mut names = names(&site.data().join("backups"));
    names.retain(|name| !others.contains(name));
    names
}

#[tokio::test]
async fn after_retention_was_lowered_the_longer_holds_until_renewed_or_over() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    let (old, renewed) = (ID, OTHER_ID);
    for id in [old, renewed] {
        site.place_backup(id, &[7; 41], today());
    }
    sweep_on(&site, long, 0, 1).await;
    sweep_on(&site, short, 2, 2).await;
    site.place_backup(renewed, &[7; 41], today() + DAY * 3);

    assert_eq!(sweep_on(&site, short, 3, 40).await, [old, renewed]);
    assert_eq!(sweep_on(&site, short, 41, 187).await, [old]);
    assert_eq!(remembered(&site).retention_periods.len(), 2);
    assert!(sweep_on(&site, short, 188, 190).await.is_empty());
    assert_eq!(
        remembered(&site).retention_periods.len(),
        1,
        "nothing has it now"
    );
}

#[tokio::test]
async fn retention_that_is_raised_again_holds_for_all() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    sweep_on(&site, long, 0, 0).await;
    sweep_on(&site, short, 1, 1).await;
    site.place_backup(ID, &[7; 41], today() + DAY * 2);

    sweep_on(&site, short, 10, 30).await;
    assert_eq!(sweep_on(&site, long, 31, 189).await, [ID]);
    assert_eq!(remembered(&site).retention_periods.len(), 1);
    assert!(sweep_on(&site, long, 190, 190).await.is_empty());
}

#[tokio::test]
async fn a_command_does_not_shorten_what_a_server_still_announces() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    sweep_on(&site, long, 0, 0).await;
    // The configuration was changed, and the server is started again only the day after.
    site.swept_at(today() + DAY);
    let by_hand = sweep_with(&site, short, today() + DAY, Mode::Remove).await;
    assert_eq!(by_hand.refused, None);
    site.place_backup(ID, &[7; 41], today() + DAY + SECOND);

    assert_eq!(sweep_on(&site, short, 2, 188).await, [ID]);
    assert!(sweep_on(&site, short, 189, 189).await.is_empty());
}
