//! Where the configuration wants things pushed to.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use kldtrace_exporters::{
    loki::{self, Loki},
    model::Family,
    otlp::{self, Otlp},
    push::{Auth, Lane, Settings},
    spool::Parcel,
    tls,
};

use crate::{
    config::{self, Compression, Config, LokiFormat, OtlpProtocol, OtlpSignal},
    signals::{own, serving::Certificate},
};

/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The destinations that are configured.
#[derive(Default)]
pub struct Destinations {
    /// Loki.
    pub loki: Option<(Loki, Settings)>,
    /// A receiver of OTLP.
    pub otlp: Option<(Otlp, Settings)>,
    /// Our certificates for them.
    pub certificates: Vec<Certificate>,
}

impl Destinations {
    /// As the configuration has them.
    ///
    /// # Errors
    /// When a file cannot be used or settings make no sense.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let mut certificates = Vec::new();
        let loki = config.loki.url.as_ref();
        let loki = loki
            .map(|url| loki_at(url, config, &mut certificates))
            .transpose()
            .context("[loki]")?;
        let otlp = config.otlp.url.as_ref();
        let otlp = otlp
            .map(|url| otlp_at(url, config, &mut certificates))
            .transpose()
            .context("[otlp]")?;
        Ok(Self {
            loki,
            otlp,
            certificates,
        })
    }

    /// The name of each, and what it is pushed: Loki, then OTLP.
    pub(super) fn lanes(&self) -> Vec<(&'static str, &'static [Lane])> {
        let loki: (_, &[Lane]) = ("loki", &[Lane::Events, Lane::Journal]);
        let otlp: (_, &[Lane]) = ("otlp", &[Lane::Events, Lane::Journal, Lane::Metrics]);
        let loki = self.loki.as_ref().map(|_| loki);
        let otlp = self.otlp.as_ref().map(|_| otlp);
        loki.into_iter().chain(otlp).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.loki.is_none() && self.otlp.is_none()
    }
}

fn loki_at(
    url: &str,
    config: &Config,
    certificates: &mut Vec<Certificate>,
) -> anyhow::Result<(Loki, Settings)> {
    let loki = &config.loki;
    let files = [&loki.tls_ca, &loki.tls_certificate, &loki.tls_key];
    let destination = Loki::new(loki::Settings {
        url: url.to_owned(),
        format: match loki.format {
            LokiFormat::Protobuf => loki::Format::Protobuf,
            LokiFormat::Json => loki::Format::Json,
        },
        tenant: loki.tenant.clone(),
        auth: auth(
            loki.username.as_deref(),
            loki.password_file.as_deref(),
            loki.token_file.as_deref(),
        ),
        node: config.node_name(),
        tls: client(url, files, "loki", certificates)?,
        deadline: loki.timeout,
    })?;
    let settings = Settings {
        bytes: loki.batch_size as usize,
        age: loki.batch_age,
        longest_wait: LONGEST_WAIT,
    };
    Ok((destination, settings))
}

fn otlp_at(
    url: &str,
    config: &Config,
    certificates: &mut Vec<Certificate>,
) -> anyhow::Result<(Otlp, Settings)> {
    let otlp = &config.otlp;
    let files = [&otlp.tls_ca, &otlp.tls_certificate, &otlp.tls_key];
    let settings = otlp::Settings {
        endpoint: url.to_owned(),
        protocol: match otlp.protocol {
            OtlpProtocol::Grpc => otlp::Protocol::Grpc,
            OtlpProtocol::Http => otlp::Protocol::Http,
        },
        auth: auth(
            otlp.username.as_deref(),
            otlp.password_file.as_deref(),
            otlp.token_file.as_deref(),
        ),
        headers: otlp.headers.clone().into_iter().collect(),
        compression: match otlp.compression {
            Compression::Gzip => otlp::Compression::Gzip,
            Compression::None => otlp::Compression::None,
        },
        tls: client(url, files, "otlp", certificates)?,
        deadline: otlp.timeout,
        signals: wanted(otlp),
    };
    let destination = Otlp::new(&settings, resource(config))?;
    let settings = Settings {
        bytes: otlp.batch_size as usize,
        age: otlp.batch_age,
        longest_wait: LONGEST_WAIT,
    };
    Ok((destination, settings))
}

fn wanted(otlp: &config::Otlp) -> otlp::Signals {
    let has = |signal| otlp.signals.contains(&signal);
    otlp::Signals {
        logs: has(OtlpSignal::Logs),
        metrics: has(OtlpSignal::Metrics),
        traces: has(OtlpSignal::Traces),
    }
}

/// Who reports.
fn resource(config: &Config) -> otlp::Resource {
    let name = config.node_name();
    otlp::Resource::new(&otlp::Node {
        version: env!("CARGO_PKG_VERSION"),
        instance: &name,
        host: &name,
        arch: std::env::consts::ARCH,
        kernel: &own::kernel_release(),
    })
}

/// All metrics at this moment, ready for OTLP, in parcels that every spool has
/// room for. `began`: since when they are counted.
pub fn metrics(config: &Config, families: &[Family], began: SystemTime) -> Vec<Parcel> {
    let ns = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    };
    let times = otlp::metrics::Times {
        start_ns: ns(began),
        now_ns: ns(SystemTime::now()),
    };
    let most = otlp::metrics::MAX_BYTES;
    let requests = otlp::metrics::requests(families, &resource(config), times, most);
    let parcel = |request: Vec<u8>| {
        let mut parcel = Parcel::default();
        parcel.add(Lane::Metrics, |out| out.extend_from_slice(&request));
        parcel
    };
    requests.into_iter().map(parcel).collect()
}

/// Who we are: a password or a token, and not both, which the configuration's
/// checks see to.
fn auth(user: Option<&str>, password_file: Option<&Path>, token_file: Option<&Path>) -> Auth {
    match (user, password_file, token_file) {
        (Some(user), Some(password_file), _) => Auth::Basic {
            user: user.to_owned(),
            password_file: password_file.to_owned(),
        },
        (_, _, Some(token_file)) => Auth::Bearer {
            token_file: token_file.to_owned(),
        },
        _ => Auth::None,
    }
}

/// TLS for an address that wants it. Certificate and key come together:
/// the configuration's checks see to that.
fn client(
    url: &str,
    [authorities, certificate, key]: [&Option<PathBuf>; 3],
    purpose: &'static str,
    certificates: &mut Vec<Certificate>,
) -> anyhow::Result<Option<tls::Client>> {
    if !url.starts_with("https:") {
        return Ok(None);
    }
    let pair = certificate.clone().zip(key.clone());
    let client = tls::Client::new(tls::Files {
        pair: pair.map(|(certificate, key)| tls::Pair { certificate, key }),
        authorities: authorities.clone(),
    })?;
    certificates.push(Certificate {
        purpose,
        files: Arc::new(client.clone()),
    });
    Ok(Some(client))
}
