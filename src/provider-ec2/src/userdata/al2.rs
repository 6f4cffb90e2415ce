//! Amazon Linux 2: a shell script that calls `bootstrap.sh`, after the user's parts.

use super::kubelet::flags;
use super::mime::{self, Part, SHELL};
use super::{Inputs, UserDataError};

pub(super) fn render(inputs: &Inputs<'_>) -> Result<String, UserDataError> {
    let mut parts = match inputs.custom.filter(|c| !c.trim().is_empty()) {
        Some(custom) if mime::is_mime(custom) => mime::parse(custom)?,
        Some(script) => vec![Part::new(SHELL, script)],
        None => Vec::new(),
    };
    parts.push(Part::new(SHELL, bootstrap(inputs)));
    Ok(mime::render(&parts))
}

fn bootstrap(inputs: &Inputs<'_>) -> String {
    let s = inputs.settings;
    let dns = inputs.kubelet.cluster_dns.first();
    let flags = flags(inputs);
    let options = [
        dns.filter(|ip| ip.contains(':'))
            .map(|_| "--ip-family ipv6".to_owned()),
        dns.map(|ip| format!("--dns-cluster-ip '{ip}'")),
        inputs
            .kubelet
            .max_pods
            .map(|_| "--use-max-pods false".to_owned()),
        (!flags.is_empty()).then(|| format!("--kubelet-extra-args '{flags}'")),
        inputs.raid0.then(|| "--local-disks raid0".to_owned()),
    ];
    let mut script = format!(
        "#!/bin/bash -xe\n\
         exec > >(tee /var/log/user-data.log|logger -t user-data -s 2>/dev/console) 2>&1\n\
         /etc/eks/bootstrap.sh '{}' --apiserver-endpoint '{}' --b64-cluster-ca '{}'",
        s.cluster_name, s.cluster_endpoint, s.cluster_ca_bundle
    );
    for option in options.into_iter().flatten() {
        script.push_str(" \\\n");
        script.push_str(&option);
    }
    script
}
