//! The pages of the admin listener: a table from path to page, and the three that always exist.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tracing::error;

use crate::readiness::Readiness;

/// Type of the `OpenMetrics` text format, as its specification writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What a GET of each path answers.
pub struct Routes {
    pages: BTreeMap<&'static str, MakePage>,
}

/// Makes a page for one request; runs on the admin thread.
type MakePage = Box<dyn Fn() -> Page + Send + Sync>;

/// One answer: its status, content type and body.
#[derive(Clone, Debug)]
pub struct Page {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

// === impl Routes ===

impl Routes {
    /// The pages that every program has: `/livez` is always 200, `/readyz` is 200 or 503 with one
    /// reason a line, `/metrics` is the registry as `OpenMetrics` text.
    pub fn standard(readiness: Readiness, registry: Arc<Registry>) -> Self {
        let routes = Self {
            pages: BTreeMap::new(),
        };
        routes
            .get("/livez", || Page::text("live\n"))
            .get("/readyz", move || ready(&readiness))
            .get("/metrics", move || metrics(&registry))
    }

    /// Adds the page of a path. `make` runs on the admin thread for each GET or HEAD of the path,
    /// so it must not wait; when it panics, the client's connection ends without an answer.
    ///
    /// # Panics
    /// When the table has the path already.
    pub fn get(
        mut self,
        path: &'static str,
        make: impl Fn() -> Page + Send + Sync + 'static,
    ) -> Self {
        let earlier = self.pages.insert(path, Box::new(make));
        assert!(earlier.is_none(), "the admin path {path} has two pages");
        self
    }

    pub(super) fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let Some(make) = self.pages.get(path) else {
            return Page::text("not found\n")
                .with_status(StatusCode::NOT_FOUND)
                .into_response();
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let page = Page::text("method not allowed\n");
            let mut response = page
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
                .into_response();
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        make().into_response()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.pages.keys()).finish()
    }
}

// === impl Page ===

impl Page {
    /// A page with status 200. `content_type` is sent as it is, for example `application/json`.
    ///
    /// # Panics
    /// When `content_type` has other than printable ASCII characters.
    pub fn new(content_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static(content_type),
            body: Bytes::from(body.into()),
        }
    }

    /// A page of plain text with status 200.
    pub fn text(body: impl Into<String>) -> Self {
        Self::new(PLAIN, body)
    }

    /// A page of plain text with status 503: the process cannot do what the path is about now.
    pub fn unavailable(body: impl Into<String>) -> Self {
        Self::text(body).with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type);
        response
    }
}

fn ready(readiness: &Readiness) -> Page {
    match readiness.state() {
        Ok(()) => Page::text("ready\n"),
        Err(reasons) => Page::unavailable(reasons.join("\n") + "\n"),
    }
}

fn metrics(registry: &Registry) -> Page {
    let mut samples = String::new();
    match text::encode(&mut samples, registry) {
        Ok(()) => Page::new(OPENMETRICS, samples),
        Err(error) => {
            error!(%error, "writing the metrics failed");
            Page::text("a metric cannot be written\n")
                .with_status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}
