//! Tests of the options of the command line.

use tokio_rustls::rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::*;
use crate::limits::Timeouts;

fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
    Options::read([&["waterclock"], arguments].concat().into_iter().map(OsString::from))
}

#[test]
fn defaults() {
    let options = parse(&[]).unwrap();
    let default = "127.0.0.1:3000".parse().unwrap();
    assert_eq!(options.listen(default), [default]);
    assert_eq!(options.interval, Duration::from_secs(1));
    assert_eq!(options.heartbeat, Duration::from_secs(15));
    assert_eq!(options.retry, Duration::from_secs(2));
    assert_eq!(options.keep_alive, Timeouts::default().idle);
    assert_eq!(options.settings().upload_grace, Settings::default().upload_grace);
}

#[test]
fn flags() {
    let arguments = ["--listen", "[::1]:0", "--interval", "100ms", "--end-grace=1m"];
    let options = parse(&arguments).unwrap();
    let listen: SocketAddr = "[::1]:0".parse().unwrap();
    assert_eq!(options.listen("127.0.0.1:3000".parse().unwrap()), [listen]);
    assert_eq!(options.interval, Duration::from_millis(100));
    assert_eq!(options.settings().upload_grace, Duration::from_mins(1));
}

#[test]
fn what_is_the_servers_is_not_given_to_a_command() {
    for option in ["--listen=127.0.0.1:1", "--store=memory", "--require-token"] {
        let error = parse(&[option, "diagnose", "http://127.0.0.1/"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let expected = "error: options of the server cannot be used with 'diagnose'";
        assert!(error.to_string().starts_with(expected), "{option}: {error}");
    }
    let options = parse(&["diagnose", "http://127.0.0.1/", "--idle=1s"]).unwrap();
    assert!(matches!(options.command, Some(Command::Diagnose(_))));
}

#[test]
fn what_does_not_go_together_for_tls_is_refused() {
    for (arguments, expected) in [
        (&["--tls-cert=chain.pem"][..], "required arguments were not provided:\n  --tls-key"),
        (&["--tls-key=key.pem"], "required arguments were not provided:\n  --tls-cert"),
        (&["--tls-cert="], "a value is required for '--tls-cert <FILE>'"),
        (&["--tls-cert=chain.pem", "--tls-self-signed"], "'--tls-cert <FILE>' cannot be used with"),
        (&["--tls-key=key.pem", "--tls-self-signed"], "'--tls-key <FILE>' cannot be used with"),
        (
            &["--acme-domain=a.test", "--tls-self-signed"],
            "'--acme-domain <NAME>' cannot be used with",
        ),
        (&["--acme-email=a@a.test"], "required arguments were not provided:\n  --acme-domain"),
        (
            &["--tls-cert=chain.pem", "--tls-key=key.pem", "--tls-self-signed"],
            "cannot be used with '--tls-self-signed'",
        ),
    ] {
        let error = parse(arguments).unwrap_err().to_string();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_self_signed_certificate_is_for_each_name_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", folder.path().display());
    let hosts = "--allowed-host=[::1],[fd00::1],clock.test";
    let options = parse(&["--tls-self-signed", &data, hosts, "--listen=127.0.0.2:0,[fd00::2]:0"]);
    let tls = options.unwrap().tls().unwrap().unwrap();
    let certificate = CertificateDer::from_pem_file(tls.file()).unwrap();
    let certificate = ParsedCertificate::try_from(&certificate).unwrap();
    let is_for = |name: &str| verify_server_name(&certificate, &name.try_into().unwrap()).is_ok();
    for name in ["localhost", "127.0.0.1", "::1", "fd00::1", "clock.test", "127.0.0.2", "fd00::2"] {
        assert!(is_for(name), "{name}");
    }
    assert!(!is_for("other.test") && !is_for("fd00::3"));
}

#[test]
fn bytes_have_units() {
    for (text, expected) in [("0", 0), ("7B", 7), ("2KiB", 2048), ("3 MiB", 3 << 20)] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_log_takes_half_of_a_small_volume_unless_options_say_otherwise() {
    let bytes = |arguments: &[&str], volume| parse(arguments).unwrap().retention(volume).bytes;
    assert_eq!(bytes(&[], u64::MAX), 1 << 30);
    assert_eq!(bytes(&[], 64 << 20), 32 << 20);
    assert_eq!(bytes(&["--retain-bytes=1GiB"], 64 << 20), 1 << 30);
    for tiny in [0, 4096] {
        assert_eq!(bytes(&[], tiny), MIN_DEFAULT_BYTES, "a log of no bytes drops all events");
        assert_eq!(bytes(&["--retain-bytes=0"], tiny), 0);
    }
}

#[test]
fn what_can_be_given_several_times() {
    let options = parse(&[
        "--listen=127.0.0.1:1,127.0.0.1:2",
        "--listen=[::1]:3",
        "--cors-origin=https://example.org",
        "--cors-origin=HTTP://localhost:5173,https://Example.net:443,*",
        "--allowed-host=Clock.test.",
    ])
    .unwrap();
    let listen = options.listen("127.0.0.1:3000".parse().unwrap());
    assert_eq!(listen.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        *options.access().unwrap().cors_origins,
        ["https://example.org", "http://localhost:5173", "https://example.net", "*"]
            .map(|text| text.parse().unwrap())
    );
    assert_eq!(*options.access().unwrap().allowed_hosts, ["clock.test".parse().unwrap()]);
}

#[test]
fn what_is_none_is_refused_with_an_example() {
    for (argument, example) in [
        ("--listen=localhost:3000", "127.0.0.1:3000"),
        ("--listen=3000", "127.0.0.1:3000"),
        ("--listen=127.0.0.1:65536", "127.0.0.1:3000"),
        ("--public-topic=a..b", "orders.>"),
        ("--cors-origin=example.org", "https://example.org"),
        ("--cors-origin=https://example.org/", "https://example.org"),
        ("--cors-origin=https://example.org/path", "https://example.org"),
        ("--cors-origin=null", "https://example.org"),
        ("--cors-origin=https://user@example.org", "https://example.org"),
        ("--allowed-host=clock.test:3000", "clock.test"),
        ("--allowed-host=a b", "clock.test"),
        ("--allowed-host=", "clock.test"),
        ("--acme-domain=*.example.org", "name each host"),
        ("--acme-domain=192.0.2.1", "live.example.org"),
        ("--acme-email=nobody", "admin@example.org"),
        ("--acme-directory=http://a.test/", "https://authority.example/directory"),
        ("--max-streams=-1", "--max-streams"),
        ("--retain-age=0s", "30days"),
        ("--retain-bytes=1GB", "64MiB"),
        ("--retain-bytes=-1", "64MiB"),
        ("--retain-bytes=99999999TiB", "64MiB"),
        ("--log=xml", "text, json"),
    ] {
        let error = parse(&[argument]).unwrap_err().to_string();
        assert!(error.contains(example), "{argument}: {error}");
    }
}

#[test]
fn a_time_that_is_none_is_refused_with_an_example() {
    for time in ["", "1", "s", "0s", "4ms", "-1s", "25h", "soon"] {
        let error = parse(&[&format!("--interval={time}")]).unwrap_err().to_string();
        assert!(error.contains("500ms, 2s or 1m 30s"), "{time}: {error}");
    }
}
