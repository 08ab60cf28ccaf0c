//! Concurrent operations on one backup, each pair in both orders: the last one wins, a renewed
//! backup is never pruned, and a reader gets one whole version.

use std::time::Duration;

use threema_safe_server::store::Restored;

use crate::support::races::{
    A, Act, Answered, B, DAY, Delete, EXPIRED, Empty, End, Erased, OLD, Prune, Pruned, Put, Race,
    Restore, Stage, WORSE, WRONG,
};
use crate::support::{names, now};

/// The race, and what is in the trash afterwards. There is a backup of this age.
async fn race_for_the_backup(age: Duration, first: Act, second: Act) -> (Race, Vec<String>) {
    let stage = Stage::with_old(age).await;
    let race = stage.in_order(&stage.file(), first, second).await;
    let here = names(&stage.site().data().join("backups"));
    assert_eq!(here.is_empty(), race.seen[2].is_none());
    (race, stage.trash())
}

#[tokio::test]
async fn of_two_uploads_the_last_one_wins() {
    let (race, trash) = race_for_the_backup(DAY, Put(A), Put(B)).await;

    race.assert(
        [Answered(204), Answered(204)],
        [Some(OLD), Some(A), Some(B)],
    );
    assert!(trash.is_empty());
}

#[tokio::test]
async fn a_removal_after_an_upload_removes_what_was_uploaded() {
    let (race, trash) = race_for_the_backup(DAY, Put(A), Delete).await;

    race.assert([Answered(204), Answered(204)], [Some(OLD), Some(A), None]);
    assert_eq!(trash, [A]);
}

#[tokio::test]
async fn an_upload_after_a_removal_is_there_and_is_a_new_one() {
    let (race, trash) = race_for_the_backup(DAY, Delete, Put(B)).await;

    race.assert([Answered(204), Answered(201)], [Some(OLD), None, Some(B)]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn of_two_removals_the_first_one_removes() {
    let (race, trash) = race_for_the_backup(DAY, Delete, Delete).await;

    race.assert([Answered(204), Answered(404)], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_is_renewed_before_it_would_be_pruned_stays() {
    let (race, trash) = race_for_the_backup(EXPIRED, Put(A), Prune).await;

    let pruned = Pruned {
        kept: 1,
        removed: 0,
    };
    race.assert([Answered(204), pruned], [Some(OLD), Some(A), Some(A)]);
    assert!(trash.is_empty());
}

#[tokio::test]
async fn a_backup_that_is_renewed_after_it_was_pruned_is_there() {
    let (race, trash) = race_for_the_backup(EXPIRED, Prune, Put(B)).await;

    let pruned = Pruned {
        kept: 0,
        removed: 1,
    };
    race.assert([pruned, Answered(201)], [Some(OLD), None, Some(B)]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_is_removed_before_it_would_be_pruned_is_in_the_trash_once() {
    let (race, trash) = race_for_the_backup(EXPIRED, Delete, Prune).await;

    let pruned = Pruned {
        kept: 1,
        removed: 0,
    };
    race.assert([Answered(204), pruned], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_was_pruned_before_it_is_removed_is_in_the_trash_once() {
    let (race, trash) = race_for_the_backup(EXPIRED, Prune, Delete).await;

    let pruned = Pruned {
        kept: 0,
        removed: 1,
    };
    race.assert([pruned, Answered(404)], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

/// The file in the trash is the one that is locked.
async fn race_for_the_trash(first: Act, second: Act) -> (Race, Stage) {
    let stage = Stage::with_old_in_the_trash().await;
    let gate = stage.trash_files().remove(0);
    let race = stage.in_order(&gate, first, second).await;
    (race, stage)
}

#[tokio::test]
async fn a_restore_after_an_upload_leaves_the_upload_and_the_trash_as_they_are() {
    let (race, stage) = race_for_the_trash(Put(A), Restore).await;

    let newer = End::Restored(Restored::Newer);
    race.assert([Answered(201), newer], [None, Some(A), Some(A)]);
    assert_eq!(stage.trash(), [OLD]);
    let age = now().duration_since(stage.trashed().await.last_upload);
    assert!(age.unwrap() >= DAY, "also its time is as it was");
}

#[tokio::test]
async fn what_is_restored_first_is_not_erased() {
    let (race, stage) = race_for_the_trash(Restore, Empty).await;

    let back = End::Restored(Restored::Back);
    race.assert([back, Erased(0)], [None, Some(OLD), Some(OLD)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn what_is_erased_first_is_not_restored() {
    let (race, stage) = race_for_the_trash(Empty, Restore).await;

    let gone = End::Restored(Restored::Gone);
    race.assert([Erased(1), gone], [None, None, None]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn of_two_restores_of_one_version_the_first_one_restores() {
    let (race, stage) = race_for_the_trash(Restore, Restore).await;

    let ends = [Restored::Back, Restored::Gone].map(End::Restored);
    race.assert(ends, [None, Some(OLD), Some(OLD)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn of_two_uploads_that_look_wrong_each_keeps_what_it_replaces() {
    let (race, trash) = race_for_the_backup(DAY, Put(WRONG), Put(WORSE)).await;

    let seen = [Some(OLD), Some(WRONG), Some(WORSE)];
    race.assert([Answered(204), Answered(204)], seen);
    assert_eq!(trash, [OLD, WRONG]);
}

#[tokio::test]
async fn a_removal_after_an_upload_that_looks_wrong_leaves_both_in_the_trash() {
    let (race, mut trash) = race_for_the_backup(DAY, Put(WRONG), Delete).await;

    race.assert(
        [Answered(204), Answered(204)],
        [Some(OLD), Some(WRONG), None],
    );
    trash.sort_unstable();
    assert_eq!(trash, [WRONG, OLD]);
}

#[tokio::test]
async fn an_upload_that_looks_wrong_after_a_removal_is_a_new_one() {
    let (race, trash) = race_for_the_backup(DAY, Delete, Put(WRONG)).await;

    race.assert(
        [Answered(204), Answered(201)],
        [Some(OLD), None, Some(WRONG)],
    );
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_is_overwritten_before_it_would_be_pruned_is_in_the_trash_once() {
    let (race, trash) = race_for_the_backup(EXPIRED, Put(WRONG), Prune).await;

    let pruned = Pruned {
        kept: 1,
        removed: 0,
    };
    let seen = [Some(OLD), Some(WRONG), Some(WRONG)];
    race.assert([Answered(204), pruned], seen);
    assert_eq!(trash, [OLD]);
}

/// The file in the trash, which an upload that looks wrong has replaced, is the one that is locked.
async fn race_for_the_replaced(first: Act, second: Act) -> (Race, Stage) {
    let stage = Stage::with_old_replaced().await;
    let gate = stage.trash_files().remove(0);
    let race = stage.in_order(&gate, first, second).await;
    (race, stage)
}

#[tokio::test]
async fn of_two_restores_of_a_replaced_version_the_first_one_restores() {
    let (race, stage) = race_for_the_replaced(Restore, Restore).await;

    let ends = [Restored::Back, Restored::Gone].map(End::Restored);
    race.assert(ends, [Some(WRONG), Some(OLD), Some(OLD)]);
    assert_eq!(stage.trash(), [WRONG]);
}

#[tokio::test]
async fn a_replaced_version_that_is_restored_first_is_not_erased() {
    let (race, stage) = race_for_the_replaced(Restore, Empty).await;

    let back = End::Restored(Restored::Back);
    race.assert([back, Erased(0)], [Some(WRONG), Some(OLD), Some(OLD)]);
    assert_eq!(stage.trash(), [WRONG]);
}

#[tokio::test]
async fn a_replaced_version_that_is_erased_first_is_not_restored() {
    let (race, stage) = race_for_the_replaced(Empty, Restore).await;

    let gone = End::Restored(Restored::Gone);
    race.assert([Erased(1), gone], [Some(WRONG), Some(WRONG), Some(WRONG)]);
    assert!(stage.trash().is_empty());
}
