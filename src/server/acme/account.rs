//! ACME account (RFC 8555 §7.3): registered once, and identified by its key from then on.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use instant_acme::{Account, Key};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::acme::error::Error;
use crate::server::acme::http::Http;
use crate::server::acme::store::{self, Store};

/// Opens the stored account, or registers a new one, and updates its contact if it is not the
/// configured one.
///
/// # Errors
/// When the account file cannot be read or written, or the authority does not answer or refuses.
pub(super) async fn open(store: &Store, http: &Http) -> Result<Account, Error> {
    let stored = match store.account()? {
        Some(stored) => stored,
        None => {
            let (_, key) = Key::generate_pkcs8()?;
            let new = store::Account {
                key: BASE64_STANDARD.encode(key.secret_pkcs8_der()),
                url: None,
                contact: None,
            };
            // Stored before the authority receives the key, so that a crash does not lose it.
            store.replace_account(&new)?;
            new
        }
    };
    let directory = store.acme().directory_url.clone();
    let builder = Account::builder_with_http(Box::new(http.clone()));
    let key = key(&stored)?;
    let (account, contact) = if let Some(url) = &stored.url {
        let account = builder.from_parts(url.clone(), key, directory).await?;
        (account, stored.contact.clone())
    } else {
        let pair = (
            Key::from_pkcs8_der(key.clone_key())?,
            PrivateKeyDer::Pkcs8(key),
        );
        // If the key is already registered, the authority returns the existing account (§7.3.1).
        let (account, _) = builder.create_from_key(pair, directory).await?;
        (account, None)
    };
    let configured = &store.acme().contact;
    if contact != *configured {
        let contacts: Vec<_> = configured.as_deref().into_iter().collect();
        account.update_contacts(&contacts).await?;
    }
    let new = store::Account {
        url: Some(account.id().to_owned()),
        contact: configured.clone(),
        key: stored.key,
    };
    if stored.url != new.url || stored.contact != new.contact {
        store.replace_account(&new)?;
    }
    Ok(account)
}

/// Removes the URL of the stored account, so that the next order registers the key again.
pub(super) fn forget_url(store: &Store) -> Result<(), Error> {
    if let Some(stored) = store.account()? {
        let unregistered = store::Account {
            url: None,
            ..stored
        };
        store.replace_account(&unregistered)?;
    }
    Ok(())
}

fn key(account: &store::Account) -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    let bytes = BASE64_STANDARD
        .decode(&account.key)
        .map_err(|_| Error::Unusable("a key"))?;
    Ok(PrivatePkcs8KeyDer::from(bytes))
}
