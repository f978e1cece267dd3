//! What Prometheus reads.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use prometheus::{
    IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::{Counter, MetricFamily},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::http::{Listen, not_found, serve, text, typed};

/// What the library calls the processor time of the process.
const CPU: &str = "process_cpu_seconds_total";

/// How many times as long as a collection of all metrics takes there is until the next one.
const SHARE: u32 = 5;

/// Registers what is true of the process as a whole: `process_*` and `podcreds_build_info`.
///
/// # Errors
///
/// When they are registered already.
pub fn register_process(
    registry: &Registry,
    version: &str,
    revision: &str,
) -> prometheus::Result<()> {
    let build = Opts::new("podcreds_build_info", "What is running: always 1.")
        .const_label("version", version)
        .const_label("revision", revision);
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(ProcessMetrics(ProcessCollector::for_self())))
}

/// What the library knows of the process, with a better count of processor time: its own has whole
/// seconds, of which an idle agent takes one in many minutes.
struct ProcessMetrics(ProcessCollector);

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let cpu = families.iter_mut().find(|family| family.name() == CPU);
        if let Some(metric) = cpu.and_then(|family| family.mut_metric().first_mut())
            && let Ok(used) = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))
        {
            let mut counter = Counter::default();
            counter.set_value(used.as_secs_f64());
            metric.set_counter(counter);
        }
        families
    }
}

/// Serves `/metrics` for as long as it is polled.
pub async fn serve_metrics(listener: impl Listen, registry: Registry) -> Infallible {
    let scrapes = Arc::new(Scrapes::of(registry));
    serve(listener, move |path| {
        let scrapes = Arc::clone(&scrapes);
        async move {
            match path.as_str() {
                "/metrics" => scrapes.next().await,
                _ => not_found("/metrics"),
            }
        }
    })
    .await
}

/// Collects the metrics whenever somebody asks, which takes the thread that calls EKS Auth as well
/// some milliseconds.
///
/// Every program that can reach the port can ask. So a request that comes while others wait gets
/// the same answer as they do, and between two collections there is [time](SHARE) for everything
/// else.
struct Scrapes {
    registry: Registry,
    last: Mutex<LastScrape>,
}

/// The last collection.
struct LastScrape {
    begun: Option<Instant>,
    took: Duration,
    /// What the registry holds as text, or why that cannot be written down.
    text: prometheus::Result<Bytes>,
}

impl Scrapes {
    fn of(registry: Registry) -> Self {
        let last = LastScrape {
            begun: None,
            took: Duration::ZERO,
            text: Ok(Bytes::new()),
        };
        Self {
            registry,
            last: Mutex::new(last),
        }
    }

    /// The metrics as they are after this has been called.
    async fn next(&self) -> Response<Full<Bytes>> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // The request before this one may have collected them meanwhile.
        if last.begun.is_none_or(|begun| begun <= asked) {
            if let Some(begun) = last.begun {
                sleep_until(begun + SHARE * last.took).await;
            }
            *last = self.collect();
        }
        match &last.text {
            Ok(body) => typed(
                StatusCode::OK,
                HeaderValue::from_static(TEXT_FORMAT),
                body.clone(),
            ),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        }
    }

    fn collect(&self) -> LastScrape {
        let begun = Instant::now();
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        if let Err(error) = &encoded {
            warn!(%error, "metrics cannot be written down");
        }
        LastScrape {
            begun: Some(begun),
            took: begun.elapsed(),
            text: encoded.map(Bytes::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use prometheus::{
        IntCounter,
        core::{Collector, Desc},
        proto::MetricFamily,
    };
    use tokio::{net::TcpListener, time::advance};

    use super::*;
    use crate::http::tests::fetch;

    #[tokio::test]
    async fn the_registry_is_served_as_text() {
        let registry = Registry::new();
        register_process(&registry, "1.2.3", "abcdef0").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_metrics(listener, registry));

        let answer = fetch(address, "GET", "/metrics").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        let build = "podcreds_build_info{revision=\"abcdef0\",version=\"1.2.3\"} 1\n";
        assert!(answer.contains(build), "{answer}");
        assert!(answer.contains("\nprocess_open_fds "), "{answer}");
        let cpu = answer.split("\nprocess_cpu_seconds_total ").nth(1).unwrap();
        let cpu: f64 = cpu.lines().next().unwrap().parse().unwrap();
        assert!(cpu > 0.0 && cpu.fract() != 0.0, "{cpu}");
        let answer = fetch(address, "GET", "/").await;
        assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
        server.abort();
    }

    /// Counts how often it is collected, each of which takes a second.
    struct Slow(IntCounter);

    impl Collector for Slow {
        fn desc(&self) -> Vec<&Desc> {
            self.0.desc()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            self.0.inc();
            // The clock is paused and this is no task, so it is put forward by hand.
            futures_util::FutureExt::now_or_never(advance(Duration::from_secs(1)));
            self.0.collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_at_once_most_of_the_time_is_left_for_other_things() {
        let collected = IntCounter::new("podcreds_test_total", "x").unwrap();
        let registry = Registry::new();
        registry
            .register(Box::new(Slow(collected.clone())))
            .unwrap();
        let scrapes = Arc::new(Scrapes::of(registry));
        let start = Instant::now();
        for round in 1..=3 {
            let asking = (0..100).map(|_| {
                let scrapes = Arc::clone(&scrapes);
                tokio::spawn(async move { scrapes.next().await.status() })
            });
            for status in futures_util::future::join_all(asking).await {
                assert_eq!(status.unwrap(), StatusCode::OK);
            }
            // The first of the round, and one for all that came after it.
            assert!(collected.get() <= 2 * round, "{}", collected.get());
        }
        let busy = Duration::from_secs(collected.get() - 1);
        assert!(start.elapsed() >= SHARE * busy, "{:?}", start.elapsed());
    }
}
