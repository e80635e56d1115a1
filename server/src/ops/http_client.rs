//! HTTP clients that work on a system without certificates, too, such as an empty container.

use reqwest::{Certificate, Client, ClientBuilder};

/// Makes a client that trusts the given certificates and those of the system. If the system has
/// none, the client trusts only the given ones. Plain HTTP needs none.
pub(crate) fn http_client(
    options: impl Fn() -> ClientBuilder,
    trusted: &[Certificate],
) -> reqwest::Result<Client> {
    let client = options().tls_certs_merge(trusted.iter().cloned()).build();
    client.or_else(|_| options().tls_certs_only(trusted.iter().cloned()).build())
}
