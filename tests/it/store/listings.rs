//! Listings that break off: nothing about them looks like a whole one.

use serde_json::json;
use threema_safe_server::store::Store;

use super::failing::{OLD, server};
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation, upload};
use crate::support::wire::{Protocol, whole};
use crate::support::{ID, OTHER_ID, Site};

/// Not even its bytes look whole: a proxy that speaks HTTP/1.0 takes the end of the connection for
/// the end of the answer, and hands on a good one.
#[tokio::test]
async fn a_listing_that_breaks_off_has_no_end_in_its_bytes_either() {
    let site = || Site::new().with(json!({ "publicUrl": "https://localhost/" }));
    for version in ["1.0", "1.1"] {
        for nth in 1..=4 {
            for does_panic in [false, true] {
                let store = FaultyStore::over(MemoryStore::default());
                let server = site().start_over(store.clone()).await;
                server.settled().await;
                for id in [ID, OTHER_ID] {
                    store.put(id.parse().unwrap(), upload(OLD)).await.unwrap();
                }
                if does_panic {
                    store.panic_at(nth, Operation::List);
                } else {
                    store.fail_from(nth, Operation::List, Fault::Io);
                }
                let mut raw = server.raw().await;
                let authorization = server.operator();
                raw.write(format!(
                    "PROPFIND /backups/ HTTP/{version}\r\nHost: localhost\r\nDepth: 1\r\n\
                     Authorization: {authorization}\r\nContent-Length: 0\r\n\
                     Connection: close\r\n\r\n"
                ))
                .await;
                let rest = String::from_utf8(raw.rest().await).unwrap();

                // The fourth look is behind the end.
                let is_whole = nth == 4;
                let what = format!("HTTP/{version}, {nth}, panic: {does_panic}: {rest}");
                assert_eq!(rest.contains("</D:multistatus>"), is_whole, "{what}");
                let last_chunk = rest.ends_with("\r\n0\r\n\r\n");
                assert_eq!(last_chunk, is_whole && version == "1.1", "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_listing_in_which_the_store_panics_breaks_off_and_the_next_one_is_whole() {
    for protocol in Protocol::BOTH {
        let (server, store) = server().await;
        store
            .put(OTHER_ID.parse().unwrap(), upload(OLD))
            .await
            .unwrap();
        let depth = [("depth", "1")];
        for nth in 1..=3 {
            store.panic_at(nth, Operation::List);
            let mut operator = server.operator_client(protocol).await;
            let broken = operator
                .send_body("PROPFIND", "/backups/", &depth, whole(""))
                .await;

            assert!(broken.is_err(), "{protocol:?} {nth}: {broken:?}");
        }
        let mut operator = server.operator_client(protocol).await;
        let listed = operator.ask("PROPFIND", "/backups/", &depth).await;
        assert_eq!(listed.hrefs().len(), 3);
    }
}
