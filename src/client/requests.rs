//! HTTP requests of each app: headers, credentials, and interpretation of the status.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE,
    HeaderMap, HeaderValue, USER_AGENT, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use zeroize::Zeroizing;

use super::error::Error;
use super::login::Login;
use super::trust::{Trust, TrustError};
use crate::backup::App;

/// The `User-Agent` of both apps, without a version (Android 6.4.2 `ThreemaSafeApiClient.kt`, iOS
/// 7.2.2 `HTTPClient.swift`).
const APP_USER_AGENT: HeaderValue = HeaderValue::from_static("Threema");
/// Number of times that iOS repeats a request with the same credentials after a 401 (iOS 7.2.2
/// `HTTPClient.swift`, `previousFailureCount < 7`).
const IOS_ATTEMPTS: usize = 7;
/// Limit for the length of a response body, in bytes (256 MiB): the largest `maxBackupBytes` that
/// this program's server accepts (docs/CONFIGURATION.md).
const RESPONSE_LIMIT: usize = 256 << 20;
/// Time limit for connecting, which the Android app sets for OkHttp (Android 6.4.2).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection pool with the timeouts of one app.
pub(super) struct Session(Client);

impl Session {
    pub(super) fn new(app: App, trust: &Trust) -> Result<Self, Error> {
        // The longest time without a byte from the server: Android 6.4.2 30 s, iOS 7.2.2 90 s.
        let read_timeout = match app {
            App::Android => Duration::from_secs(30),
            App::Ios => Duration::from_secs(90),
        };
        Client::builder()
            .tls_backend_preconfigured(trust.client_config())
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(read_timeout)
            .build()
            .map(Self)
            .map_err(|error| TrustError::Setup(error).into())
    }

    /// Sends a request as Android 6.4.2 does: once, with preemptive credentials in ISO-8859-1.
    pub(super) async fn send_as_android(
        &self,
        method: Method,
        url: Url,
        body: Option<Bytes>,
        login: Option<&Login>,
    ) -> Result<Bytes, Error> {
        let mut headers = headers(&method, &url);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(login) = login {
            headers.insert(AUTHORIZATION, basic(login, latin_1));
        }
        let response = self.send(method, url, headers, body).await?;
        interpret(response, login).await
    }

    /// Sends a request as iOS 7.2.2 does: first without credentials, and after each 401 again with
    /// them, at most seven times.
    pub(super) async fn send_as_ios(
        &self,
        method: Method,
        url: Url,
        body: Option<Bytes>,
        login: Option<&Login>,
    ) -> Result<Bytes, Error> {
        let mut headers = headers(&method, &url);
        headers.insert(
            ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, deflate, br"),
        );
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        headers
            .entry(ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        let mut response = self
            .send(method.clone(), url.clone(), headers.clone(), body.clone())
            .await?;
        for _ in 0..IOS_ATTEMPTS {
            let Some(login) = login else { break };
            if response.status() != StatusCode::UNAUTHORIZED {
                break;
            }
            if !challenges_basic(response.headers()) {
                return Err(Error::NoChallenge);
            }
            // The body is read to its end so that the connection can be reused.
            read_body(response).await?;
            headers.insert(AUTHORIZATION, basic(login, utf_8));
            response = self
                .send(method.clone(), url.clone(), headers.clone(), body.clone())
                .await?;
        }
        interpret(response, login).await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, Error> {
        let mut request = self.0.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        request.send().await.map_err(Error::from_reqwest)
    }
}

/// The headers that both apps send.
fn headers(method: &Method, url: &Url) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, APP_USER_AGENT);
    let octet_stream = HeaderValue::from_static("application/octet-stream");
    if method == Method::PUT {
        headers.insert(CONTENT_TYPE, octet_stream);
    } else if method == Method::GET {
        let is_config = url.path().ends_with("/config");
        let json = HeaderValue::from_static("application/json");
        headers.insert(ACCEPT, if is_config { json } else { octet_stream });
    }
    headers
}

/// The value of `Authorization` for Basic authentication (RFC 7617), with the charset of the app.
fn basic(login: &Login, encode: fn(&str) -> Vec<u8>) -> HeaderValue {
    let joined = Zeroizing::new(format!("{}:{}", login.username, *login.password));
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(Zeroizing::new(encode(&joined))));
    let mut value = HeaderValue::from_str(&format!("Basic {}", *encoded))
        .expect("base64 consists of characters that are valid in a header");
    value.set_sensitive(true);
    value
}

fn utf_8(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// ISO-8859-1, the default charset of OkHttp's `Credentials.basic` (Android 6.2 and later). Other
/// characters become question marks.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(character).unwrap_or(b'?'))
        .collect()
}

fn challenges_basic(headers: &HeaderMap) -> bool {
    headers.get_all(WWW_AUTHENTICATE).iter().any(|challenge| {
        let scheme = challenge.as_bytes().get(..5);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
    })
}

/// Interprets the status as the apps do (Android 6.2 and later, iOS 7.x): any 2xx is success.
async fn interpret(response: Response, login: Option<&Login>) -> Result<Bytes, Error> {
    let status = response.status();
    if status.is_success() {
        if response
            .headers()
            .get(CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity")
        {
            return Err(Error::Compressed);
        }
        return read_body(response).await;
    }
    Err(match status {
        StatusCode::UNAUTHORIZED if login.is_some() => Error::WrongCredentials,
        StatusCode::UNAUTHORIZED => Error::NoCredentials,
        StatusCode::NOT_FOUND => Error::NotFound,
        other if other.is_redirection() => Error::Redirected(other.as_u16()),
        other => Error::Status(other.as_u16()),
    })
}

async fn read_body(mut response: Response) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::from_reqwest)? {
        if body.len() + chunk.len() > RESPONSE_LIMIT {
            return Err(Error::ResponseTooLarge(RESPONSE_LIMIT));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str, password: &str) -> Login {
        Login {
            username: username.into(),
            password: Zeroizing::new(password.into()),
        }
    }

    #[test]
    fn basic_credentials_are_those_of_the_apps_test() {
        // Android `ThreemaSafeServerInfoTest.kt`.
        let value = basic(&login("username", "password"), latin_1);
        assert_eq!(value.to_str().unwrap(), "Basic dXNlcm5hbWU6cGFzc3dvcmQ=");
        assert!(value.is_sensitive());
    }

    #[test]
    fn the_apps_differ_in_the_charset() {
        assert_eq!(basic(&login("ü", "€"), latin_1), "Basic /Do/");
        assert_eq!(basic(&login("ü", "€"), utf_8), "Basic w7w64oKs");
    }
}
