//! The host's kernel, its headers and its modules, and a busybox, of Debian's arm64 packages.
//!
//! All packages of a kernel are of one version: image and modules are what the host runs, headers and common headers what
//! the driver is built against, and the build tools (kbuild) are of this machine's own architecture. They are unpacked
//! side by side, and made to fit what is here: absolute paths in the headers' Makefile are edited, and build tools of a
//! newer suite run with that suite's own C library, which is unpacked beside them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::apt::{Apt, BACKPORTS};
use super::modules::{self, OF_TESTS, OF_USERS};
use super::tools::Tools;
use super::unpack::Folder;
use crate::{command, progress};

const FOLDER: &str = "kernel";
const BUSYBOX_FOLDER: &str = "busybox";
/// Suites that a package is looked for in, where the user names none: the machine's own is added to them.
const SUITES: &[&str] = &["bookworm", BACKPORTS, "trixie", UNSTABLE];
const UNSTABLE: &str = "unstable";
/// The newest kernel that Debian has.
pub const NEWEST: &str = "linux-image-arm64/sid";

/// Which modules tests load, in the folder: one that was made for others is made anew.
const LIST: &str = "few-modules.list";

/// A kernel to run as host, and what is needed to build a module for it.
#[derive(Clone, Debug)]
pub struct HostKernel {
    /// The image, as its package has it.
    pub image: PathBuf,
    /// The build directory for modules; none, where the user named an image alone.
    pub headers: Option<PathBuf>,
    /// A folder to lay at /lib/modules, with what users ask for.
    pub modules: Option<PathBuf>,
    /// Another, with what tests load.
    pub few_modules: Option<PathBuf>,
}

/// A kernel of Debian's by the name of its package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPackage {
    /// The package, or a pattern with `*`.
    name: String,
    /// The suite, where the user named one.
    suite: Option<String>,
}

/// Returns the static arm64 busybox that set-up fetched, or the user's own.
pub fn busybox() -> Result<PathBuf> {
    if let Some(own) = std::env::var_os("VERDIGRIS_BUSYBOX") {
        return Ok(own.into());
    }
    let folder = Folder::open(BUSYBOX_FOLDER).context("set-up has not fetched a busybox")?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.path.join(place));
    places.into_iter().find(|file| file.is_file()).context("the busybox package has no busybox")
}

/// Fetches a busybox, if it is not there yet.
pub fn fetch_busybox(apt: &Apt) -> Result<()> {
    if busybox().is_ok() {
        return Ok(());
    }
    let version = apt.version("busybox-static:arm64", "bookworm")?;
    let debs = apt.download(&[format!("busybox-static:arm64={version}")])?;
    Folder::create(BUSYBOX_FOLDER, &debs, |_| Ok(())).map(drop)
}

impl HostKernel {
    /// Opens the driver's reference kernel, if set-up has fetched it.
    pub fn open() -> Option<Self> {
        Self::open_folder(FOLDER)
    }

    fn open_folder(name: &str) -> Option<Self> {
        let folder = Folder::open(name)?;
        let release = release(&folder)?;
        let image = folder.path.join("image");
        let listed = std::fs::read_to_string(folder.path.join(LIST)).ok()?;
        (image.is_file() && listed == OF_TESTS.join("\n")).then(|| Self {
            image,
            headers: Some(build_directory(&folder.path, &release)),
            modules: Some(folder.path.join("modules")),
            few_modules: Some(folder.path.join("few-modules")),
        })
    }

    /// Returns the version of the packages that set-up fetched.
    pub fn version() -> Option<String> {
        let folder = Folder::open(FOLDER)?;
        let image = folder.packages.into_iter().find(|[name, ..]| name.starts_with("linux-image-"));
        image.map(|[_, version, _]| version)
    }

    /// Fetches the driver's reference kernel, if it is not there yet.
    pub fn fetch(apt: &Apt) -> Result<()> {
        if Self::open().is_none() {
            let fetch = || fetch(apt, FOLDER, "linux-image-arm64", BACKPORTS);
            progress::step("fetching the host's kernel", fetch)?;
        }
        Ok(())
    }
}

impl KernelPackage {
    /// Reads `NAME` or `NAME/SUITE`, as apt takes them.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, suite) =
            text.split_once('/').map_or((text, None), |(name, suite)| (name, Some(suite)));
        ensure!(
            name.starts_with("linux-image-"),
            "a kernel's package begins with linux-image-: linux-image-arm64/sid, linux-image-arm64/trixie, \
             linux-image-6.12*-arm64"
        );
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.*".contains(c);
        ensure!(text.replacen('/', "", 1).chars().all(is_plain), "{text} is no name of a package");
        let suite = suite.map(|suite| if suite == "sid" { UNSTABLE } else { suite }.to_owned());
        Ok(Self { name: name.to_owned(), suite })
    }

    /// Returns the name of its folder in the cache.
    fn folder(&self) -> String {
        let suite = self.suite.as_ref().map(|suite| format!("-{suite}")).unwrap_or_default();
        format!("{}{suite}", self.name.replace('*', "_"))
    }

    /// Opens it, if it is there.
    pub fn open(&self) -> Option<HostKernel> {
        HostKernel::open_folder(&self.folder())
    }

    /// Returns the suites that it is looked for in, the likeliest first.
    pub fn suites(&self) -> Vec<&str> {
        self.suite.as_deref().map_or_else(|| SUITES.to_vec(), |suite| vec![suite])
    }

    /// Fetches it, if it is not there yet.
    pub fn fetch(&self, apt: &Apt) -> Result<()> {
        if self.open().is_some() {
            return Ok(());
        }
        let name = self.resolve(apt)?;
        let versions = self
            .suites()
            .into_iter()
            .map(|suite| (suite, apt.version(&format!("{name}:arm64"), suite)));
        let found =
            versions.filter_map(|(suite, version)| Some((suite, version.ok()?))).next_back();
        let Some((suite, _)) = found else {
            bail!(
                "there is no package {name} in {}; there are: {}",
                self.suites().join(", "),
                apt.kernels()?.join(" ")
            )
        };
        let fetch = || fetch(apt, &self.folder(), &name, suite);
        progress::step(&format!("fetching {name} of {suite}"), fetch).map(drop)
    }

    /// Finds the package that a pattern means: of several the one with the shortest name, and of these the newest.
    fn resolve(&self, apt: &Apt) -> Result<String> {
        if !self.name.contains('*') {
            return Ok(self.name.clone());
        }
        let kernels = apt.kernels()?;
        choose(&self.name, &kernels).with_context(|| {
            format!("no kernel's package is {}; there are: {}", self.name, kernels.join(" "))
        })
    }
}

fn choose(pattern: &str, names: &[String]) -> Option<String> {
    let found = names.iter().filter(|name| matches(pattern, name));
    // A plain build has the shortest name: -rt, -cloud and -16k are others.
    let number = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    let variant = |name: &str| name.split('-').count();
    found.max_by_key(|name| (std::cmp::Reverse(variant(name)), number(name))).cloned()
}

/// Compares a name with a pattern in which `*` is any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

fn release(folder: &Folder) -> Option<String> {
    let mut names =
        folder.packages.iter().filter_map(|[name, ..]| name.strip_prefix("linux-headers-"));
    names.find(|name| !name.ends_with("-common")).map(str::to_owned)
}

/// Fetches a kernel with all that belongs to it, and makes it fit.
fn fetch(apt: &Apt, folder: &str, package: &str, suite: &str) -> Result<Folder> {
    let version = apt.version(&format!("{package}:arm64"), suite)?;
    let image = image(apt, package, &version)?;
    let release = image["linux-image-".len()..].trim_end_matches("-unsigned").to_owned();
    let mut packages = vec![format!("{image}:arm64={version}")];
    // Since 7.x the image's package has nothing in it but what it depends on.
    let parts = apt.depends(&format!("{image}:arm64"), &version)?.into_iter();
    let parts = parts.filter(|name| {
        ["linux-binary-", "linux-modules-", "linux-base-"]
            .iter()
            .any(|start| name.starts_with(start))
    });
    packages.extend(parts.map(|name| format!("{name}:arm64={version}")));
    packages.extend(headers(apt, &release, &version)?);
    let is_newer = suite != apt.suite && suite != "bookworm" && suite != BACKPORTS;
    if is_newer {
        let library = apt.version("libc6", suite)?;
        packages.push(format!("libc6:{}={library}", apt.architecture));
    }
    Folder::create(folder, &apt.download(&packages)?, |root| {
        arrange(root, &release)?;
        relocate(&build_directory(root, &release))?;
        if is_newer { use_own_library(root, &release) } else { Ok(()) }
    })
}

/// Follows packages that have nothing in them but the name of another.
fn image(apt: &Apt, package: &str, version: &str) -> Result<String> {
    let start = "linux-image-";
    let mut name = package.to_owned();
    for _ in 0..3 {
        let depends = apt.depends(&format!("{name}:arm64"), version).unwrap_or_default();
        match depends.into_iter().find(|other| other.starts_with(start)) {
            Some(other) => name = other,
            None => break,
        }
    }
    ensure!(
        name.contains(|c: char| c.is_ascii_digit()),
        "{package} {version} depends on no {start}..."
    );
    Ok(name)
}

/// Finds the packages that a module for a release is built with.
fn headers(apt: &Apt, release: &str, version: &str) -> Result<Vec<String>> {
    const START: &str = "linux-headers-";
    let own = format!("{START}{release}:arm64");
    let kbuild = dependency(apt, &own, version, "linux-kbuild-")?;
    // The common headers go by the release too, without the architecture.
    let common = kbuild.replacen("linux-kbuild-", START, 1) + "-common";
    Ok(vec![
        format!("{own}={version}"),
        format!("{common}={version}"),
        format!("{kbuild}:{}={version}", apt.architecture),
    ])
}

/// Returns where a module for a release is built from.
fn build_directory(root: &Path, release: &str) -> PathBuf {
    root.join("usr/src").join(format!("linux-headers-{release}"))
}

/// Returns what a package depends on whose name begins so.
fn dependency(apt: &Apt, package: &str, version: &str, start: &str) -> Result<String> {
    let found = apt.depends(package, version)?.into_iter().find(|name| name.starts_with(start));
    found.with_context(|| format!("{package} {version} depends on no {start}..."))
}

/// Puts image and modules where they are looked for, and removes the rest, most of the packages, which nothing uses.
fn arrange(root: &Path, release: &str) -> Result<()> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(release));
    let images = [root.join("boot").join(format!("vmlinuz-{release}"))];
    let images = images.into_iter().chain(places.iter().map(|place| place.join("vmlinuz")));
    let image =
        images.into_iter().find(|file| file.is_file()).context("the packages have no kernel")?;
    std::fs::rename(image, root.join("image"))?;
    let from = places
        .iter()
        .find(|place| place.join("kernel").is_dir())
        .context("the packages have no modules")?;
    let tools = Tools::open();
    modules::make_tree(&tools, from, OF_USERS, &root.join("modules"))?;
    modules::make_tree(&tools, from, OF_TESTS, &root.join("few-modules"))?;
    std::fs::write(root.join(LIST), OF_TESTS.join("\n"))?;
    modules::keep_packed(from, &root.join("modules"))?;
    let mut rm = Command::new("rm");
    rm.arg("-rf").args(places.iter().filter_map(|place| place.parent()));
    rm.args([root.join("boot"), root.join("usr/lib").join(format!("linux-image-{release}"))]);
    command::run(&mut rm)
}

/// Makes the headers' Makefile find what stands beside it, wherever that is.
fn relocate(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = std::fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let here = "$(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/";
    Ok(std::fs::write(makefile, text.replace("/usr/src/", here))?)
}

/// Puts a script in the place of each build tool that runs it with the library beside it, and tries one.
fn use_own_library(root: &Path, release: &str) -> Result<()> {
    let scripts = build_directory(root, release).join("scripts").canonicalize();
    let scripts = scripts.context("the headers have no build tools")?;
    let mut find = Command::new("find");
    let files = command::output(find.arg(&scripts).args(["-type", "f", "-perm", "-u+x"]))?;
    for tool in files.lines().map(Path::new) {
        if std::fs::read(tool)?.starts_with(b"\x7fELF") {
            wrap(tool, root)?;
        }
    }
    // It finds the one for the module's kind beside its own program, which is the loader now.
    let (modpost, real) = (scripts.join("mod/modpost"), "modpost.real-lsb-64");
    if modpost.with_file_name(real).is_file() {
        std::fs::remove_file(&modpost)?;
        std::os::unix::fs::symlink(real, &modpost)?;
    }
    command::run(Command::new(modpost).args(["-o", "/dev/null"]))
        .context("the build tools of this kernel do not run on this machine")
}

fn wrap(tool: &Path, root: &Path) -> Result<()> {
    let machine = std::env::consts::ARCH;
    let loader = if machine == "x86_64" { "ld-linux-x86-64.so.2" } else { "ld-linux-aarch64.so.1" };
    let name =
        tool.file_name().context("a tool has a name")?.to_string_lossy().into_owned() + ".program";
    let program = tool.with_file_name(&name);
    std::fs::rename(tool, &program)?;
    let below =
        program.strip_prefix(root.canonicalize()?).context("a tool outside of its folder")?;
    let up = "/..".repeat(below.components().count() - 1);
    std::fs::write(
        tool,
        format!(
            "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\n\
             for libraries in \"$here{up}/usr/lib/{machine}-linux-gnu\" \"$here{up}/lib/{machine}-linux-gnu\"; do\n\
             \x20   [ -e \"$libraries/{loader}\" ] && break\ndone\n\
             exec \"$libraries/{loader}\" --library-path \"$libraries\" \"$here/{name}\" \"$@\"\n"
        ),
    )?;
    Ok(std::fs::set_permissions(tool, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_may_name_its_suite() {
        let package = KernelPackage::parse(NEWEST).unwrap();
        assert_eq!(package.suites(), [UNSTABLE]);
        assert_eq!(package.folder(), "linux-image-arm64-unstable");
        let package = KernelPackage::parse("linux-image-7.2*-arm64").unwrap();
        assert_eq!(package.suites(), SUITES);
        assert_eq!(package.folder(), "linux-image-7.2_-arm64");
        for bad in ["7.2", "linux-image-a b", "linux-image-a/b/c"] {
            assert!(KernelPackage::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_means_the_newest_plain_kernel() {
        let names = [
            "linux-image-6.12.107+deb13-arm64",
            "linux-image-6.12.117+deb13-arm64",
            "linux-image-6.12.117+deb13-rt-arm64",
            "linux-image-6.12.99+deb13-arm64",
            "linux-image-7.2.13+deb14-arm64",
        ]
        .map(str::to_owned);
        let chosen = |pattern: &str| choose(pattern, &names);
        assert_eq!(chosen("linux-image-6.12*-arm64").unwrap(), names[1]);
        assert_eq!(chosen("linux-image-6.12*rt*").unwrap(), names[2]);
        assert_eq!(chosen("linux-image-*").unwrap(), names[4]);
        assert_eq!(chosen("linux-image-5*"), None);
    }
}
