//! What Prometheus reads.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use prometheus::{
    IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder, process_collector::ProcessCollector,
};
use tracing::warn;

use super::http::{Listen, not_found, serve, text, typed};

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
    registry.register(Box::new(ProcessCollector::for_self()))
}

/// Serves `/metrics` for as long as it is polled.
pub async fn serve_metrics(listener: impl Listen, registry: Registry) -> Infallible {
    serve(listener, move |path| {
        let answer = match path.as_str() {
            "/metrics" => exposition(&registry),
            _ => not_found("/metrics"),
        };
        std::future::ready(answer)
    })
    .await
}

fn exposition(registry: &Registry) -> Response<Full<Bytes>> {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(body) => typed(StatusCode::OK, HeaderValue::from_static(TEXT_FORMAT), body),
        Err(error) => {
            warn!(%error, "metrics cannot be written down");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::ops::http::tests::fetch;

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
        let answer = fetch(address, "GET", "/").await;
        assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
        server.abort();
    }
}
