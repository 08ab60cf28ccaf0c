//! ACME order (RFC 8555 §7.4): account, order, challenges, certificate request, certificate.

use std::time::Duration;

use instant_acme::{
    AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::server::acme::account;
use crate::server::acme::challenge::Challenges;
use crate::server::acme::error::{Error, detail};
use crate::server::acme::http::Http;
use crate::server::acme::store::Store;

/// Delay before the authority is polled for the first time; doubled each time.
const POLL: Duration = Duration::from_millis(500);
/// Time limit for the validation, and again for the issuance.
const POLL_TIMEOUT: Duration = Duration::from_secs(180);
/// Time limit for the whole order.
const TIMEOUT: Duration = Duration::from_secs(600);

/// An issued certificate.
pub(super) struct Issued {
    /// The private key, PEM.
    pub(super) private_key: String,
    /// The certificate and its intermediates, PEM, leaf first.
    pub(super) chain: String,
}

/// Runs one order. Until it ends, `challenges` answers the validations of the authority.
///
/// # Errors
/// When a file cannot be used, or the authority does not issue a certificate within [`TIMEOUT`].
pub(super) async fn order(
    store: &Store,
    http: &Http,
    challenges: &Challenges,
) -> Result<Issued, Error> {
    let all = async {
        match try_order(store, http, challenges).await {
            Err(Error::NoAccount) => {
                account::forget_url(store)?;
                try_order(store, http, challenges).await
            }
            other => other,
        }
    };
    let issued = tokio::time::timeout(TIMEOUT, all).await;
    challenges.clear();
    issued.map_err(|_| Error::Timeout)?
}

async fn try_order(store: &Store, http: &Http, challenges: &Challenges) -> Result<Issued, Error> {
    let account = account::open(store, http).await?;
    let domains = &store.acme().domains;
    let identifiers: Vec<_> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    answer_challenges(&mut order, challenges).await?;
    let policy = RetryPolicy::new()
        .initial_delay(POLL)
        .backoff(2.0)
        .timeout(POLL_TIMEOUT);
    match order.poll_ready(&policy).await {
        Ok(OrderStatus::Ready) => {}
        Err(error @ instant_acme::Error::Timeout(_)) => return Err(error.into()),
        // A failed order rarely contains a reason; its authorizations do.
        Ok(_) => {
            return Err(validation_failure(&mut order)
                .await
                .unwrap_or(Error::Unusable("an order")));
        }
        Err(error) => {
            return Err(validation_failure(&mut order)
                .await
                .unwrap_or_else(|| error.into()));
        }
    }

    // A new key for each certificate: a key that was stolen unnoticed is useless once its
    // certificate has expired.
    let key = KeyPair::generate().map_err(Error::Certificate)?;
    let mut params = CertificateParams::new(domains.clone()).map_err(Error::Certificate)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(Error::Certificate)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&policy).await?;
    Ok(Issued {
        private_key: key.serialize_pem(),
        chain,
    })
}

/// Sets the answers to the challenges, and notifies the authority that they are ready.
async fn answer_challenges(order: &mut Order, challenges: &Challenges) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            // Validated in an earlier order.
            continue;
        }
        let domain = authorization.identifier().to_string();
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(Error::NoChallenge(domain));
        };
        let digest = challenge.key_authorization().digest();
        challenges.set(&domain, digest.as_ref())?;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// The first domain that was not validated, with the authority's reason; `None` without a reason.
async fn validation_failure(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let domain = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let problem = state.challenges.iter().find_map(|one| one.error.as_ref());
        if let Some(problem) = problem {
            return Some(Error::NotValidated {
                domain,
                detail: detail(problem),
            });
        }
    }
    None
}
