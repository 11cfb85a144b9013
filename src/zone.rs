//! `docker_zone`: the memory that all workers share.

use core::ffi::CStr;

use rules::directive;

use crate::conf::MainConf;
use crate::module::Docker;
use crate::nginx::conf::{Conf, Directive, SetError};
use crate::nginx::shm;

/// `docker_zone name:size`; repeated for zones of other names.
pub(crate) struct Zone;

impl Directive for Zone {
    type Conf = MainConf;
    const NAME: &'static CStr = c"docker_zone";

    fn set(conf: &mut MainConf, cf: Conf, args: &[&str]) -> Result<(), SetError> {
        let (name, size) = directive::zone(args, shm::min_size())?;
        let zone = cf.add_zone::<Docker>(name, size)?;
        conf.zones.push((name.to_owned(), zone));
        Ok(())
    }
}
