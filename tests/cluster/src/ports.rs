//! Free ports for the programs of a cluster.

use std::net::TcpListener;

/// Free ports on loopback, all different.
///
/// # Errors
/// Where there are not enough.
pub fn free_ports(count: usize) -> anyhow::Result<std::vec::IntoIter<u16>> {
    // all are bound until the last one is known
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    let ports: Vec<u16> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<anyhow::Result<_>>()?;
    Ok(ports.into_iter())
}
