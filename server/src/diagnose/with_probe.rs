//! The checks on a server with a probe.

use std::{cell::RefCell, time::Duration};

use reqwest::{Method, Url};
use waterclock_diagnose::{
    Check, DiagnosisOptions, FetchError, Finding, ProbeClient, ProbeEvent, ProbeMethod,
    ProbeRequest, RESPONSE_TIMEOUT, Report, RequestEcho, ServerLost, StreamReader, StreamResponse,
    diagnose,
};

use super::{args::Diagnose, http::HttpClient, printer::ReportPrinter};

/// Makes all checks. `first` is the response by which the probe was found. Returns the report, and
/// an error if the server went away before the end.
pub(super) async fn measure(
    client: &HttpClient,
    probe: Url,
    first: &StreamResponse,
    options: &Diagnose,
    printer: ReportPrinter,
) -> (Report, Result<(), ServerLost>) {
    let plan = DiagnosisOptions {
        protocol: printer.report.path.client,
        idle: options.idle,
        streams: usize::from(options.streams),
    };
    let terminal = Terminal { client, probe, printer: RefCell::new(printer) };
    let result = diagnose(&terminal, first, plan).await;
    (terminal.printer.into_inner().finish(), result)
}

/// The probe client of the terminal, which prints findings as they come.
struct Terminal<'a> {
    client: &'a HttpClient,
    probe: Url,
    printer: RefCell<ReportPrinter>,
}

impl ProbeClient for Terminal<'_> {
    const IS_BROWSER: bool = false;

    async fn fetch(
        &self,
        request: ProbeRequest,
        on_read: impl Fn(&StreamReader),
    ) -> Result<StreamResponse, FetchError> {
        let mut url = self.probe.clone();
        url.set_query(Some(&request.query()));
        let method = match request.method {
            ProbeMethod::Get => Method::GET,
            ProbeMethod::Post => Method::POST,
        };
        let http_request = if request.accepts_compression {
            self.client.compressed(method, &url)
        } else {
            self.client.uncompressed(method, &url)
        };
        let is_enough = |reader: &StreamReader| {
            on_read(reader);
            false
        };
        let exchange = self.client.read(http_request, request.timeout(), is_enough).await;
        exchange.map(|exchange| exchange.response).map_err(|error| error.kind())
    }

    async fn resume(&self) -> Option<RequestEcho> {
        let request = self.client.uncompressed(Method::GET, &self.probe);
        let request = request.header("last-event-id", ProbeEvent::id(1));
        let exchange = self.client.read(request, RESPONSE_TIMEOUT, |_| false).await;
        exchange.ok()?.response.reader.echo
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Does nothing: the terminal prints only results.
    fn on_start(&self, _: &[Check]) {}

    fn on_finding(&self, finding: Finding) {
        self.printer.borrow_mut().add(finding);
    }
}
