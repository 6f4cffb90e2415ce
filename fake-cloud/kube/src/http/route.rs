//! From a request to the operation it asks for, and back to a response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::Body;
use serde_json::{Value, json};

use super::body::{self, ResponseBody};
use super::options::{Call, delete_options, write_options};
use super::path::{ObjectPath, Path};
use super::query::Query;
use super::strict::{Written, as_warning};
use super::table::{self, Include, Show};
use super::{discovery, list, respond, subresources, watch};
use crate::access::{self, Attributes, User, users};
use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::delete::Deleted;
use crate::ops::{self, FieldValidation, Part, State, Target, WriteOptions};
use crate::patch::PatchKind;
use crate::server::ApiServer;

/// Answers a request.
pub async fn handle<B>(
    server: &ApiServer,
    user: Option<User>,
    request: Request<B>,
) -> Response<ResponseBody>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, request_body) = request.into_parts();
    let text = |name: header::HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let (content_type, accept, user_agent) = (
        text(header::CONTENT_TYPE),
        text(header::ACCEPT),
        text(header::USER_AGENT),
    );
    let body = match body::read(request_body).await {
        Ok(body) => body,
        Err(error) => return respond::refusal(&error),
    };
    let user = match user {
        Some(user) => Ok(Some(user)),
        None => users::of(&server.inner.state.lock(), &parts.headers),
    };
    let user = match user {
        Ok(user) => user,
        Err(error) => return respond::refusal(&error),
    };
    let call = Call {
        user,
        method: parts.method,
        query: Query::parse(parts.uri.query().unwrap_or("")),
        content_type,
        accept,
        user_agent,
        body,
    };
    let path = Path::parse(parts.uri.path());
    let answer =
        allowed(server, parts.uri.path(), path.as_ref(), &call).and_then(|()| match path {
            None => Err(ApiError::no_such_resource()),
            Some(Path::Objects(path)) => objects(server, &path, &call),
            Some(path) => discovery::answer(server, &path, &call.accept),
        });
    answer.unwrap_or_else(|error| respond::refusal(&error))
}

/// Refuses what the request's user may not do.
fn allowed(server: &ApiServer, whole: &str, path: Option<&Path>, call: &Call) -> Result<()> {
    let Some(user) = &call.user else {
        return Ok(());
    };
    let wanted = match path {
        Some(Path::Objects(path)) => of_objects(path, call),
        _ => Attributes::Path {
            verb: call.method.as_str().to_ascii_lowercase(),
            path: whole.to_owned(),
        },
    };
    access::check(&server.inner.state.lock(), user, &wanted)
}

/// What a request for objects is in the eyes of the authorizer.
fn of_objects(path: &ObjectPath, call: &Call) -> Attributes {
    let name = path.name.clone().unwrap_or_default();
    let watches = call.query.flag("watch") || path.watch;
    let verb = match (&call.method, name.is_empty()) {
        (&Method::GET, true) if watches => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        (&Method::DELETE, false) => "delete",
        (other, _) => other.as_str(),
    };
    // A namespace is in itself.
    let is_namespace = path.group.is_empty() && path.resource == "namespaces";
    let namespace = if is_namespace {
        path.name.clone()
    } else {
        path.namespace.clone()
    };
    // Who lists one object by its name asks for that one.
    let named = || {
        let selector = call.query.get("fieldSelector")?;
        let name = selector.strip_prefix("metadata.name=")?;
        (!name.contains(',')).then(|| name.trim_start_matches('=').to_owned())
    };
    Attributes::Resource {
        verb: verb.to_ascii_lowercase(),
        group: path.group.clone(),
        resource: match &path.subresource {
            Some(subresource) => format!("{}/{subresource}", path.resource),
            None => path.resource.clone(),
        },
        namespace: namespace.unwrap_or_default(),
        name: if name.is_empty() && matches!(verb, "list" | "watch") {
            named().unwrap_or_default()
        } else {
            name
        },
    }
}

fn objects(server: &ApiServer, path: &ObjectPath, call: &Call) -> Result<Response<ResponseBody>> {
    let mut state = server.inner.state.lock();
    let state = &mut *state;
    let info = state
        .registry
        .get(&path.group, &path.resource)
        .ok_or_else(|| state.registry.unserved(&path.group))?;
    let version = info
        .versions
        .iter()
        .position(|v| v.served && v.name == path.version)
        .ok_or_else(|| state.registry.unserved(&path.group))?;
    if !info.namespaced && path.namespace.is_some() {
        return Err(ApiError::no_such_resource());
    }
    let target = Target::new(Arc::clone(info), version, path.namespace.as_deref());
    let deprecation = target.version_info().and_then(|v| v.deprecation.clone());
    let mut answer = of_resource(state, &target, path, call)?;
    if let Some(warning) = deprecation {
        respond::warn(&mut answer, &[warning]);
    }
    Ok(answer)
}

fn of_resource(
    state: &mut State,
    target: &Target,
    path: &ObjectPath,
    call: &Call,
) -> Result<Response<ResponseBody>> {
    if target.info.create_only {
        return subresources::create_only(state, target, path, call);
    }
    match (path.name.as_deref(), path.subresource.as_deref()) {
        (None, _) => collection(state, target, path.watch, call),
        // One object's watch, as old clients put it.
        (Some(name), None) if path.watch && call.method == Method::GET => {
            let only = call
                .query
                .and("fieldSelector", &format!("metadata.name={name}"));
            watch::open(state, target, &only, show(state, call)?)
        }
        (Some(name), None) => object(state, target, name, call),
        (Some(name), Some(subresource)) => {
            subresources::subresource(state, target, name, subresource, call)
        }
    }
}

fn collection(
    state: &mut State,
    target: &Target,
    watches: bool,
    call: &Call,
) -> Result<Response<ResponseBody>> {
    let show = show(state, call)?;
    let one = call.accept.contains("as=PartialObjectMetadata;");
    let watches = watches || call.query.flag("watch");
    if one && call.method == Method::GET && !watches {
        let of = go_type(target);
        return Err(form(&format!(
            "you requested PartialObjectMetadata, but the requested object is a list (*{of}List)"
        )));
    }
    match call.method {
        Method::GET if watches => watch::open(state, target, &call.query, show),
        Method::GET => {
            let page = list::page(state, target, &call.query)?;
            Ok(match show {
                Show::Object => respond::bytes(200, "application/json", list::write(target, &page)),
                Show::Metadata => {
                    respond::document(200, &table::partial_list(&page.objects(), &page.metadata))
                }
                show => respond::document(
                    200,
                    &table::of_objects(target, &page.objects(), &show, &page.metadata),
                ),
            })
        }
        Method::POST if target.info.namespaced && target.namespace.is_empty() => {
            Err(ApiError::method_not_allowed())
        }
        Method::POST => {
            let mut options = write_options(call, "CreateOptions")?;
            let object = call.document(target, &mut options)?;
            if !matches!(meta::version(&object), "" | "0") {
                return Err(ApiError::bare(
                    "resourceVersion should not be set on objects to be created",
                ));
            }
            let stored = ops::create::create(state, target, object, &mut options)?;
            Ok(shown(target, 201, &stored, show, &options))
        }
        Method::DELETE if target.info.namespaced && target.namespace.is_empty() => {
            Err(ApiError::method_not_allowed())
        }
        Method::DELETE => {
            let options = delete_options(call)?;
            let page = list::page(state, target, &call.query)?;
            for object in &page.objects() {
                let mut target = target.clone();
                target.namespace = meta::namespace(object).to_owned();
                ops::delete::delete(state, &target, meta::name(object), &options)?;
            }
            Ok(respond::bytes(
                200,
                "application/json",
                list::write(target, &page),
            ))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

pub(super) fn object(
    state: &mut State,
    target: &Target,
    name: &str,
    call: &Call,
) -> Result<Response<ResponseBody>> {
    let show = show(state, call)?;
    let many = call.accept.contains("as=PartialObjectMetadataList;");
    if many && call.method == Method::GET {
        let of = go_type(target);
        return Err(form(&format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*{of})"
        )));
    }
    match call.method {
        Method::GET => {
            call.query
                .version("resourceVersion")
                .map_err(ApiError::bare)?;
            let object = state.require(target, name)?;
            Ok(shown(target, 200, &object, show, &WriteOptions::default()))
        }
        Method::PUT => {
            let mut options = write_options(call, "UpdateOptions")?;
            options.require_version = true;
            let object = call.document(target, &mut options)?;
            let existed = state
                .store
                .get(&target.key, &target.namespace, name)
                .is_some();
            let stored =
                ops::replace::update(state, target, name, Part::Main, object, &mut options)?;
            let code = if existed { 200 } else { 201 };
            Ok(shown(target, code, &stored, show, &options))
        }
        Method::PATCH => patch(state, target, name, "", call, show),
        Method::DELETE => {
            let options = delete_options(call)?;
            let deleted = ops::delete::delete(state, target, name, &options)?;
            Ok(match deleted {
                // The real server shows pods, and whatever finalizers hold, and a Status for the rest.
                Deleted::Pending(object) => {
                    shown(target, 200, &object, show, &WriteOptions::default())
                }
                Deleted::Gone(object) if target.info.is("", "pods") => {
                    shown(target, 200, &object, show, &WriteOptions::default())
                }
                Deleted::Gone(object) => {
                    let mut details = json!({"name": name, "kind": target.info.plural, "uid": meta::uid(&object)});
                    if !target.info.group.is_empty() {
                        meta::as_map(&mut details)
                            .insert("group".into(), target.info.group.as_str().into());
                    }
                    respond::document(200, &respond::success(details))
                }
            })
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

pub(super) fn patch(
    state: &mut State,
    target: &Target,
    name: &str,
    subresource: &str,
    call: &Call,
    show: Show,
) -> Result<Response<ResponseBody>> {
    let mut options = write_options(call, "PatchOptions")?;
    let kind = call
        .content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_owned();
    let existed = state
        .store
        .get(&target.key, &target.namespace, name)
        .is_some();
    let applies = kind == "application/apply-patch+yaml";
    let mut errors = Vec::new();
    if applies && call.query.get("fieldManager").is_none() {
        let why = "is required for apply patch";
        errors.push(FieldError::required("fieldManager", why));
    }
    if !applies && call.query.get("force").is_some() {
        let why = "may not be specified for non-apply patch";
        errors.push(FieldError::forbidden("force", why));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid_options("PatchOptions", &errors));
    }
    let document = body::decode(&call.content_type, &call.body).map_err(|e| ApiError {
        message: e.message.replace(body::NO_BODY, "error decoding patch"),
        ..e
    })?;
    let as_patch = match kind.as_str() {
        "application/apply-patch+yaml" => None,
        "application/json-patch+json" => Some(PatchKind::Json),
        "application/merge-patch+json" => Some(PatchKind::Merge),
        "application/strategic-merge-patch+json" if !target.info.custom => {
            Some(PatchKind::Strategic)
        }
        "application/strategic-merge-patch+json" | "application/json" | "application/yaml"
            if target.info.custom =>
        {
            return Err(ApiError::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        _ => {
            let mut error = ApiError::unsupported_media_type("");
            error.message = "415: Unsupported Media Type".to_owned();
            error.details = json!({});
            return Err(error);
        }
    };
    let stored = if let Some(kind) = as_patch {
        options.written = Written::patch(kind, &call.body);
        ops::patch::patch(
            state,
            target,
            name,
            subresource,
            kind,
            &document,
            &mut options,
        )?
    } else {
        if matches!(subresource, "" | "status") {
            super::typed::check_applied(target, &document)?;
        }
        let twice = Written::yaml(&call.body).pruned(&[]).into_iter();
        let mut twice = twice.map(|why| format!("error converting YAML to JSON: {why}"));
        match options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => options.warnings.extend(twice.map(|t| as_warning(&t))),
            FieldValidation::Strict => {
                if let Some(why) = twice.next() {
                    let why = format!("error strict decoding YAML: {why}");
                    return Err(ApiError::bad_request(why));
                }
            }
        }
        let force = call.query.flag("force");
        ops::apply::apply(
            state,
            target,
            name,
            subresource,
            force,
            document,
            &mut options,
        )?
    };
    Ok(shown(
        target,
        if existed { 200 } else { 201 },
        &stored,
        show,
        &options,
    ))
}

/// The answer with one object, in the version and form the client asked for.
pub(super) fn shown(
    target: &Target,
    code: u16,
    object: &Arc<Value>,
    show: Show,
    options: &WriteOptions,
) -> Response<ResponseBody> {
    let object = &crate::crd::versions::seen(target, object);
    let mut response = match show {
        Show::Object => respond::object(code, object),
        show => {
            let metadata = json!({"resourceVersion": meta::version(object)});
            respond::document(
                code,
                &table::of_objects(target, std::slice::from_ref(object), &show, &metadata),
            )
        }
    };
    respond::warn(&mut response, &options.warnings);
    response
}

/// 406 of a form that does not fit what was asked for.
fn form(why: &str) -> ApiError {
    let mut error = ApiError::not_acceptable();
    why.clone_into(&mut error.message);
    error
}

/// A resource's type in Go: its package and its kind.
fn go_type(target: &Target) -> String {
    if target.info.custom {
        return "unstructured.Unstructured".to_owned();
    }
    let package = match target.info.group.split('.').next() {
        Some("") | None => "core",
        Some(group) => group,
    };
    format!("{package}.{}", target.info.kind)
}

/// What the `Accept` header asks for; the first form that we have.
pub(super) fn show(state: &State, call: &Call) -> Result<Show> {
    if call.accept.is_empty() {
        return Ok(Show::Object);
    }
    for media in call.accept.split(',') {
        let has = |text: &str| media.contains(text);
        let json = has("application/json") || has("*/*");
        if !json {
            continue;
        }
        let known = has("g=meta.k8s.io") && (has("v=v1;") || media.trim_end().ends_with("v=v1"));
        if has("as=") && !known {
            continue;
        }
        if has("as=Table") {
            let include = match call.query.get("includeObject") {
                Some("None") => Include::None,
                Some("Object") => Include::Object,
                Some("Metadata") | None => Include::Metadata,
                Some(other) => {
                    return Err(ApiError::bad_request(format!(
                        "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                    )));
                }
            };
            return Ok(Show::Table {
                include,
                now_seconds: state.clock.wall().as_second(),
            });
        }
        if has("as=PartialObjectMetadata") {
            return Ok(Show::Metadata);
        }
        if has("as=") {
            continue;
        }
        return Ok(Show::Object);
    }
    let mut error = ApiError::not_acceptable();
    if !call.accept.contains("as=") {
        error.message = format!(
            "406: Not Acceptable\n\nAvailable representations: {}",
            crate::error::MEDIA_TYPES
        );
        error.details = json!({});
    }
    Err(error)
}
