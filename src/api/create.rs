//! The create and the patch body, with the words of every client version. Unknown fields are ignored: old clients send
//! dialects.

use super::error::ApiError;
use super::fields::Fields;
use crate::runtime::{
    Agent, CreateRequest, Egress, EgressMode, IdlePolicy, Ingress, IngressProtocol, Invalid,
    TokenSavingPatch,
};
use serde_json::value::RawValue;

const FIELDS: &[&str] = &[
    "name",
    "display_name",
    "resources",
    "environment_variables",
    "checkpoint_id",
    "idle_policy",
    "egress_policy",
    "ingress_specs",
    "llm_tool_io_capture_enabled",
    "llm_token_saving_policy",
    "runtime_agent",
    "runtime_agent_post_install_script",
    "runtime_agent_post_config_script",
    "runtime_agent_secret_preset",
    "image",
    "profile",
    "filesystem",
    "limits",
    "network",
    "vcpus",
    "cur_memory_mib",
    "min_memory_mib",
    "max_memory_mib",
    "idle_suspend_after_secs",
    "arch",
];

/// Most hosts in a list that is only shown again, and most bytes of one.
const MAX_HOSTS: usize = 1000;
const MAX_HOST: usize = 255;

/// Most ports that may be asked for, and most bytes of a word or script about an agent.
const MAX_PORTS: usize = 100;
const MAX_AGENT: usize = 64 * 1024;

/// Reads the fields of a create body; what they mean is checked later.
pub fn parse(body: &RawValue) -> Result<CreateRequest, ApiError> {
    let fields = Fields::of_body(body, FIELDS)?;
    Ok(CreateRequest {
        name: fields.string("name")?,
        checkpoint_id: fields.string("checkpoint_id")?,
        ..read(&fields)?
    })
}

/// As [`parse`], for a patch body: the name is `display_name`, as in the object, or `name`.
pub fn parse_patch(body: &RawValue) -> Result<CreateRequest, ApiError> {
    let fields = Fields::of_body(body, FIELDS)?;
    let name = match fields.string("display_name")? {
        None => fields.string("name")?,
        name => name,
    };
    Ok(CreateRequest {
        name,
        ..read(&fields)?
    })
}

fn read(fields: &Fields<'_>) -> Result<CreateRequest, Invalid> {
    let resources = fields.object("resources", &["requests", "limits"])?;
    let inner = |name, known| match &resources {
        Some(resources) => resources.object(name, known),
        None => Ok(None),
    };
    let requests = inner("requests", &["memory_mib", "vcpus"])?;
    let resource_limits = inner("limits", &["memory_mib"])?;
    let limits = fields.object("limits", &["pids", "disk_mib"])?;
    let whole =
        |fields: &Option<Fields<'_>>, name| fields.as_ref().map_or(Ok(None), |f| f.whole(name));
    Ok(CreateRequest {
        request_memory_mib: whole(&requests, "memory_mib")?,
        request_vcpus: whole(&requests, "vcpus")?,
        limit_memory_mib: whole(&resource_limits, "memory_mib")?,
        vcpus: fields.whole("vcpus")?,
        cur_memory_mib: fields.whole("cur_memory_mib")?,
        min_memory_mib: fields.whole("min_memory_mib")?,
        max_memory_mib: fields.whole("max_memory_mib")?,
        idle_suspend_after_secs: fields.whole("idle_suspend_after_secs")?,
        arch: fields.string("arch")?,
        environment_variables: fields.string_map("environment_variables")?,
        egress: egress(fields)?,
        ingress: ingress(fields)?,
        idle_policy: idle_policy(fields)?,
        llm_tool_io_capture_enabled: fields.boolean("llm_tool_io_capture_enabled")?,
        llm_token_saving_policy: token_saving(fields)?,
        agent: agent(fields)?,
        image: fields.string("image")?,
        profile: fields.string("profile")?,
        filesystem: fields.string("filesystem")?,
        network: fields.string("network")?,
        pids: whole(&limits, "pids")?,
        disk_mib: whole(&limits, "disk_mib")?,
        ..CreateRequest::default()
    })
}

fn ingress(fields: &Fields<'_>) -> Result<Option<Vec<Ingress>>, Invalid> {
    const FIELD: &str = "ingress_specs";
    let Some(specs) = fields.objects(FIELD, &["protocol", "runtime_port"], MAX_PORTS)? else {
        return Ok(None);
    };
    let read = |spec: &Fields<'_>| {
        let protocol = match spec.string("protocol")?.as_deref() {
            Some("http") => IngressProtocol::Http,
            Some("https") => IngressProtocol::Https,
            _ => return Err(Invalid::one_of(spec.name("protocol"), ["http", "https"])),
        };
        let port = spec.whole("runtime_port")?.unwrap_or(0);
        let runtime_port = u16::try_from(port)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| {
                Invalid::new(spec.name("runtime_port"), "must be a port from 1 to 65535")
            })?;
        Ok(Ingress {
            protocol,
            runtime_port,
        })
    };
    specs.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn agent(fields: &Fields<'_>) -> Result<Agent, Invalid> {
    let text = |name: &'static str| -> Result<Option<String>, Invalid> {
        let text = fields.string(name)?;
        if text.as_ref().is_some_and(|text| text.len() > MAX_AGENT) {
            let problem = format!("must be at most {MAX_AGENT} bytes");
            return Err(Invalid::new(name, problem));
        }
        Ok(text)
    };
    Ok(Agent {
        key: text("runtime_agent")?,
        post_install_script: text("runtime_agent_post_install_script")?,
        post_config_script: text("runtime_agent_post_config_script")?,
        secret_preset: text("runtime_agent_secret_preset")?,
    })
}

/// Today's {mode, allowed_hosts, denied_hosts}, or an old client's {enabled|intercept_enabled, allowed_hosts}.
fn egress(fields: &Fields<'_>) -> Result<Option<Egress>, Invalid> {
    const KNOWN: &[&str] = &[
        "mode",
        "allowed_hosts",
        "denied_hosts",
        "enabled",
        "intercept_enabled",
    ];
    let Some(policy) = fields.object("egress_policy", KNOWN)? else {
        return Ok(None);
    };
    let mode = match policy.string("mode")?.as_deref() {
        None | Some("allowlist") => EgressMode::Allowlist,
        Some("denylist") => EgressMode::Denylist,
        Some(_) => {
            return Err(Invalid::one_of(
                "egress_policy.mode",
                ["allowlist", "denylist"],
            ));
        }
    };
    let hosts = |name| -> Result<Vec<String>, Invalid> {
        let hosts = policy.strings(name)?.unwrap_or_default();
        if hosts.len() > MAX_HOSTS || hosts.iter().any(|host| host.len() > MAX_HOST) {
            let problem = format!("must be at most {MAX_HOSTS} names of at most {MAX_HOST} bytes");
            return Err(Invalid::new(policy.name(name), problem));
        }
        Ok(hosts)
    };
    let older = policy.boolean("intercept_enabled")?;
    let enabled = policy.boolean("enabled")?.or(older).unwrap_or(true);
    Ok(Some(Egress {
        mode,
        allowed_hosts: hosts("allowed_hosts")?,
        denied_hosts: hosts("denied_hosts")?,
        enabled,
    }))
}

fn idle_policy(fields: &Fields<'_>) -> Result<Option<IdlePolicy>, Invalid> {
    let Some(policy) = fields.object("idle_policy", &["mode", "suspend_after_secs"])? else {
        return Ok(None);
    };
    let secs = || {
        policy.whole("suspend_after_secs")?.ok_or_else(|| {
            Invalid::new("idle_policy.suspend_after_secs", "is needed for this mode")
        })
    };
    Ok(Some(match policy.string("mode")?.as_deref() {
        Some("disabled") => IdlePolicy::Disabled,
        Some("suspend_only") => IdlePolicy::SuspendOnly {
            suspend_after_secs: secs()?,
        },
        Some("suspend_and_wakeup") => IdlePolicy::SuspendAndWakeup {
            suspend_after_secs: secs()?,
        },
        _ => {
            let modes = ["disabled", "suspend_only", "suspend_and_wakeup"];
            return Err(Invalid::one_of("idle_policy.mode", modes));
        }
    }))
}

fn token_saving(fields: &Fields<'_>) -> Result<TokenSavingPatch, Invalid> {
    const KNOWN: &[&str] = &[
        "json_array_enabled",
        "log_enabled",
        "search_results_enabled",
        "git_diff_enabled",
    ];
    let Some(policy) = fields.object("llm_token_saving_policy", KNOWN)? else {
        return Ok(TokenSavingPatch::default());
    };
    Ok(TokenSavingPatch {
        json_array_enabled: policy.boolean("json_array_enabled")?,
        log_enabled: policy.boolean("log_enabled")?,
        search_results_enabled: policy.boolean("search_results_enabled")?,
        git_diff_enabled: policy.boolean("git_diff_enabled")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> CreateRequest {
        parse(serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn the_current_client_is_understood() {
        let request = request(
            r#"{"egress_policy":{"mode":"denylist","allowed_hosts":[],"denied_hosts":["a.b"]},"ingress_specs":[],
                "name":"x","resources":{"limits":{"memory_mib":64},"requests":{"memory_mib":32,"vcpus":2}},
                "llm_tool_io_capture_enabled":true,"some_later_field":{"a":[1]}}"#,
        );
        assert_eq!(request.name.as_deref(), Some("x"));
        assert_eq!(
            (request.request_memory_mib, request.limit_memory_mib),
            (Some(32), Some(64))
        );
        assert_eq!(request.request_vcpus, Some(2));
        assert_eq!(request.egress.unwrap().denied_hosts, ["a.b"]);
        assert_eq!(request.llm_tool_io_capture_enabled, Some(true));
        assert_eq!(request.ingress, Some(vec![]));
    }

    #[test]
    fn the_oldest_client_is_understood() {
        let request = request(
            r#"{"vcpus":1,"cur_memory_mib":1024,"min_memory_mib":0,"max_memory_mib":0,"ingress_specs":[],
                "egress_policy":{"intercept_enabled":false,"allowed_hosts":["a"]},"idle_suspend_after_secs":60}"#,
        );
        assert_eq!(
            (request.vcpus, request.cur_memory_mib),
            (Some(1), Some(1024))
        );
        assert_eq!(request.idle_suspend_after_secs, Some(60));
        assert!(!request.egress.unwrap().enabled);
    }

    #[test]
    fn policies_that_could_not_be_shown_again_are_refused() {
        let fails = |json: &str| parse(serde_json::from_str(json).unwrap()).is_err();
        assert!(fails(r#"{"idle_policy":{"mode":"often"}}"#));
        assert!(fails(r#"{"idle_policy":{"mode":"suspend_only"}}"#));
        assert!(fails(r#"{"egress_policy":{"mode":"maybe"}}"#));
        assert!(fails(r#"{"egress_policy":{"allowed_hosts":[1]}}"#));
        assert!(fails(r#"{"ingress_specs":{}}"#));
        for spec in [
            r#"{"protocol":"tcp","runtime_port":1}"#,
            r#"{"protocol":"http"}"#,
            r#"{"protocol":"http","runtime_port":0}"#,
            r#"{"protocol":"http","runtime_port":65536}"#,
            "1",
        ] {
            assert!(fails(&format!("{{\"ingress_specs\":[{spec}]}}")), "{spec}");
        }
        assert!(!fails(
            r#"{"checkpoint_id":null,"egress_policy":null,"idle_policy":null}"#
        ));
    }

    #[test]
    fn a_patch_names_what_it_changes_and_nothing_else() {
        let patch = |json: &str| parse_patch(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(patch("{}"), CreateRequest::default());
        let name = |json| patch(json).name;
        assert_eq!(name(r#"{"name":"a"}"#).as_deref(), Some("a"));
        assert_eq!(
            name(r#"{"display_name":"b","name":"a"}"#).as_deref(),
            Some("b")
        );
        // A checkpoint is for what does not exist yet.
        assert_eq!(patch(r#"{"checkpoint_id":"x"}"#), CreateRequest::default());
        let request = patch(
            r#"{"resources":{"limits":{"memory_mib":512},"requests":{"memory_mib":256}},
                "egress_policy":{"mode":"allowlist","allowed_hosts":["a"],"denied_hosts":[]},
                "ingress_specs":[{"protocol":"https","runtime_port":443}]}"#,
        );
        assert_eq!(
            (request.request_memory_mib, request.limit_memory_mib),
            (Some(256), Some(512))
        );
        let port = Ingress {
            protocol: IngressProtocol::Https,
            runtime_port: 443,
        };
        assert_eq!(request.ingress, Some(vec![port]));
    }
}
