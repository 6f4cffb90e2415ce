//! Instance profiles (`aws-provider.md` §17): the user's, or one made for the role. The name of one we make is a
//! function of cluster, region, class UID and role, so that a crash between making and remembering leaves nothing
//! behind: the next attempt finds what is there.

use karpenter_ec2_api::{Ec2, Ec2Error, ErrorClass, Tags};

use crate::labels as l;
use crate::nodeclass::NodeClass;
use crate::settings::Ec2Settings;
use crate::template::fnv1a;

/// Path of a class' profiles.
fn path(settings: &Ec2Settings, class: &NodeClass) -> String {
    let uid = class.metadata.uid.as_deref().unwrap_or_default();
    format!(
        "/karpenter/{}/{}/{uid}/",
        settings.region, settings.cluster_name
    )
}

/// Makes sure that the class has a profile; its name.
///
/// # Errors
/// When IAM refuses.
pub(crate) async fn ensure(
    ec2: &dyn Ec2,
    settings: &Ec2Settings,
    class: &NodeClass,
) -> Result<Option<String>, Ec2Error> {
    if let Some(profile) = &class.spec.instance_profile {
        return Ok(Some(profile.clone()));
    }
    let Some(role) = &class.spec.role else {
        return Ok(None);
    };
    // Roles may be given with their path.
    let role = role.rsplit('/').next().unwrap_or(role);
    let path = path(settings, class);
    let hash = fnv1a(format!("{path}{role}").as_bytes());
    let name = format!("{}_{hash}", settings.cluster_name);
    let mut tags: Tags = class.spec.tags.clone().into_inner();
    tags.insert(
        l::cluster_owned_tag(&settings.cluster_name),
        "owned".to_owned(),
    );
    tags.insert(l::CLUSTER_TAG.to_owned(), settings.cluster_name.clone());
    tags.insert(
        l::NODE_CLASS.to_owned(),
        class.metadata.name.clone().unwrap_or_default(),
    );
    tags.insert(
        karpenter_api::labels::REGION.to_owned(),
        settings.region.clone(),
    );
    let profile = match ec2.get_instance_profile(&name).await {
        Ok(profile) => profile,
        Err(e) if e.is_not_found() => {
            match ec2.create_instance_profile(&name, &path, &tags).await {
                Ok(profile) => profile,
                Err(e) if e.class() == ErrorClass::AlreadyExists => {
                    ec2.get_instance_profile(&name).await?
                }
                Err(e) => return Err(e),
            }
        }
        Err(e) => return Err(e),
    };
    if profile.roles.iter().any(|r| r == role) {
        return Ok(Some(name));
    }
    for other in &profile.roles {
        ec2.remove_role_from_instance_profile(&name, other).await?;
    }
    ec2.add_role_to_instance_profile(&name, role).await?;
    Ok(Some(name))
}

/// Deletes all profiles made for a class.
///
/// # Errors
/// When IAM refuses; what is gone already is no error.
pub(crate) async fn delete_all(
    ec2: &dyn Ec2,
    settings: &Ec2Settings,
    class: &NodeClass,
) -> Result<(), Ec2Error> {
    for profile in ec2.list_instance_profiles(&path(settings, class)).await? {
        for role in &profile.roles {
            gone_is_fine(
                ec2.remove_role_from_instance_profile(&profile.name, role)
                    .await,
            )?;
        }
        gone_is_fine(ec2.delete_instance_profile(&profile.name).await)?;
    }
    Ok(())
}

fn gone_is_fine(result: Result<(), Ec2Error>) -> Result<(), Ec2Error> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        result => result,
    }
}
