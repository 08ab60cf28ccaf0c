//! Request metrics: number, outcome and duration.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::server::metrics::label::{Endpoint, Number, ResponseClass};

/// Buckets of the duration in seconds. A durable upload takes milliseconds, that of a slow phone a
/// minute; the Android app waits 30 seconds for a response.
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0,
];

/// Methods that are label values; all others are `other`.
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PROPFIND"];

/// The metrics of requests.
pub(crate) struct Requests {
    responses: Family<ResponseClass, Counter>,
    durations: Family<Endpoint, Histogram>,
    in_flight: Number,
}

/// A request in flight, until this is dropped.
pub(crate) struct InFlightRequest<'a>(&'a Requests);

impl Requests {
    /// Creates the metrics and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new: fn() -> Histogram = || Histogram::new(BUCKETS);
        let requests = Self {
            responses: Family::default(),
            durations: Family::new_with_constructor(new),
            in_flight: Gauge::default(),
        };
        registry.register(
            "requests",
            "Requests, by resource, method and class of the response",
            requests.responses.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From the end of a request's header to its response, its body included; refused requests excluded",
            Unit::Seconds,
            requests.durations.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests in flight",
            requests.in_flight.clone(),
        );
        // The series of the apps' requests exist from the start, so that the first failure is an
        // increase and not a new series.
        for (route, method) in [
            ("config", "GET"),
            ("backup", "GET"),
            ("backup", "PUT"),
            ("backup", "DELETE"),
        ] {
            drop(
                requests
                    .durations
                    .get_or_create(&Endpoint { route, method }),
            );
            for class in ["2xx", "401", "4xx", "5xx", "cancelled"] {
                let response = ResponseClass {
                    route,
                    method,
                    class,
                };
                drop(requests.responses.get_or_create(&response));
            }
        }
        requests
    }

    /// Counts a request that starts.
    pub(crate) fn start(&self) -> InFlightRequest<'_> {
        self.in_flight.inc();
        InFlightRequest(self)
    }

    /// Counts a malformed HTTP/1.1 request, which hyper rejects before the handler.
    pub(crate) fn unreadable(&self) {
        let response = ResponseClass {
            route: "unknown",
            method: "other",
            class: "4xx",
        };
        self.responses.get_or_create(&response).inc();
    }
}

impl InFlightRequest<'_> {
    /// Counts the response; without a status, the client disconnected before it.
    pub(crate) fn ended(
        &self,
        route: &'static str,
        method: &'static str,
        status: Option<u16>,
        took: Duration,
    ) {
        let Self(requests) = self;
        let known = METHODS.into_iter().find(|known| *known == method);
        let method = known.unwrap_or("other");
        let class = class(status);
        let response = ResponseClass {
            route,
            method,
            class,
        };
        requests.responses.get_or_create(&response).inc();
        // Refusals are fast, or delayed on purpose, and would distort the histogram.
        if ["2xx", "3xx", "5xx"].contains(&class) {
            let durations = requests
                .durations
                .get_or_create(&Endpoint { route, method });
            durations.observe(took.as_secs_f64());
        }
    }
}

impl Drop for InFlightRequest<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// The class of a status. 401 has a class of its own, because an iPhone sends each request without
/// credentials first.
fn class(status: Option<u16>) -> &'static str {
    match status {
        None => "cancelled",
        Some(401) => "401",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    fn encoded(registry: &Registry) -> String {
        let mut all = String::new();
        text::encode(&mut all, registry).unwrap();
        all
    }

    #[test]
    fn every_status_has_a_class_and_401_is_a_separate_one() {
        for (status, expected) in [
            (None, "cancelled"),
            (Some(200), "2xx"),
            (Some(207), "2xx"),
            (Some(304), "3xx"),
            (Some(400), "4xx"),
            (Some(401), "401"),
            (Some(429), "4xx"),
            (Some(500), "5xx"),
            (Some(507), "5xx"),
        ] {
            assert_eq!(class(status), expected, "{status:?}");
        }
    }

    #[test]
    fn unknown_methods_share_one_label() {
        let mut registry = Registry::default();
        let requests = Requests::register(&mut registry);

        for method in ["REPORT", "other"] {
            let request = requests.start();
            request.ended("unknown", method, Some(404), Duration::ZERO);
        }

        let all = encoded(&registry);
        let line = "requests_total{route=\"unknown\",method=\"other\",class=\"4xx\"} 2\n";
        assert!(all.contains(line), "{all}");
        assert!(!all.contains("REPORT"), "{all}");
    }

    #[test]
    fn a_request_is_in_flight_until_it_ends_and_refusals_have_no_duration() {
        let mut registry = Registry::default();
        let requests = Requests::register(&mut registry);
        let second = Duration::from_secs(1);

        let refused = requests.start();
        refused.ended("backup", "PUT", Some(401), second);
        let stored = requests.start();
        assert!(encoded(&registry).contains("requests_in_flight 2\n"));
        drop(refused);
        assert!(encoded(&registry).contains("requests_in_flight 1\n"));
        stored.ended("backup", "PUT", Some(201), second);
        drop(stored);

        let all = encoded(&registry);
        assert!(all.contains("requests_in_flight 0\n"), "{all}");
        let of = "{route=\"backup\",method=\"PUT\"}";
        let sum = format!("request_duration_seconds_sum{of} 1.0\n");
        assert!(all.contains(&sum), "{all}");
        for (le, expected) in [("0.5", 0), ("1.0", 1)] {
            let bucket =
                format!("bucket{{le=\"{le}\",route=\"backup\",method=\"PUT\"}} {expected}\n");
            assert!(all.contains(&bucket), "{all}");
        }
    }
}
