//! A virtual machine monitor on `/dev/kvm`, whole: this is the file to begin your own with.
//!
//! A VM is a file descriptor. What it has for memory is memory of this process, lent by address: so all that
//! Linux can do with a process's memory (swap it, merge it, move it, watch it) it does with the guest's.
//! A vCPU is a file descriptor too, and runs on the thread that asks for it, until the guest does something
//! that needs us: here, a load or store where there is no memory.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{kvm_userspace_memory_region, kvm_vcpu_init};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// What a guest reaches where it has no memory.
pub trait Device {
    /// Answers a load.
    fn load(&self, vcpu: usize, address: u64) -> Result<u64>;

    /// Takes a store, and says whether the vCPU goes on.
    fn store(&self, vcpu: usize, address: u64, value: u64) -> Result<ControlFlow<()>>;
}

/// A VM with its memory.
pub struct Machine {
    vm: VmFd,
    // After the VM, so that it is dropped after it: the guest must lose the memory first.
    memory: GuestMemoryMmap,
}

impl Machine {
    /// Makes a VM with one stretch of memory, at an address of the guest's.
    pub fn new(address: u64, byte_count: usize) -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm: is the driver loaded?")?;
        let vm = kvm.create_vm().context("no VM")?;
        // Anonymous memory: nothing of it exists before somebody, guest or host, touches it.
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(address), byte_count)])
            .context("no memory for the guest")?;
        for (slot, region) in memory.iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            lend(&vm, slot).context("the memory was refused")?;
        }
        Ok(Self { vm, memory })
    }

    /// Copies something into the guest's memory.
    pub fn load(&self, bytes: &[u8], address: u64) -> Result<()> {
        self.memory.write_slice(bytes, GuestAddress(address)).context("it has no room there")
    }

    /// Returns where the guest's memory is in this process: what Linux is to be told.
    pub fn memory(&self) -> std::ops::Range<u64> {
        let region = self.memory.iter().next().expect("the one that new() made");
        let start = region.as_ptr() as u64;
        start..start + region.len()
    }

    /// Opens the file of the VM's counters: a call that kvm-ioctls lacks.
    #[allow(unsafe_code)]
    pub fn counters(&self) -> Result<File> {
        const KVM_GET_STATS_FD: u32 = 0xaece;
        // SAFETY: the call has no argument, and the descriptor that it returns is new.
        unsafe {
            let fd = libc::ioctl(self.vm.as_raw_fd(), KVM_GET_STATS_FD as _);
            ensure!(fd >= 0, "no counters: {}", std::io::Error::last_os_error());
            Ok(File::from_raw_fd(fd))
        }
    }

    /// Makes a vCPU that will begin at an address, with these values in x0, x1 and so on.
    pub fn vcpu(&self, index: usize, entry: u64, arguments: &[u64]) -> Result<Vcpu> {
        let fd = self.vm.create_vcpu(index as u64).context("no vCPU")?;
        // Which CPU it is like: the kernel knows best. This also sets all registers to their reset values:
        // EL1, interrupts masked, MMU off.
        let mut kind = kvm_vcpu_init::default();
        self.vm.get_preferred_target(&mut kind)?;
        fd.vcpu_init(&kind).context("the vCPU can't be initialised")?;
        let vcpu = Vcpu { index, fd };
        vcpu.set(register::PC, entry)?;
        for (number, value) in arguments.iter().enumerate() {
            vcpu.set(register::x(number), *value)?;
        }
        Ok(vcpu)
    }
}

/// Gives memory of this process to a guest.
#[allow(unsafe_code)]
fn lend(vm: &VmFd, slot: kvm_userspace_memory_region) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the range is a mapping of vm-memory's, which knows that others write there, and which the
    // machine keeps for longer than the VM.
    unsafe { vm.set_user_memory_region(slot) }
}

/// Names of registers: KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE, and where each is in struct
/// kvm_regs, in words of 32 bits (Documentation/virt/kvm/api.rst, KVM_SET_ONE_REG).
mod register {
    const CORE: u64 = 0x6030_0000_0010_0000;
    pub const PC: u64 = CORE | 0x40;

    pub const fn x(number: usize) -> u64 {
        CORE | (2 * number as u64)
    }
}

/// A vCPU.
pub struct Vcpu {
    index: usize,
    fd: VcpuFd,
}

impl Vcpu {
    fn set(&self, register: u64, value: u64) -> Result<()> {
        self.fd
            .set_one_reg(register, &value.to_le_bytes())
            .with_context(|| format!("register {register:#x} can't be set"))?;
        Ok(())
    }

    /// Runs the guest on this thread, until the device says that it is enough.
    pub fn run(mut self, device: &impl Device) -> Result<()> {
        loop {
            match self.fd.run() {
                // What is put into `data` is what the guest's load finds, once it runs on.
                Ok(VcpuExit::MmioRead(address, data)) => {
                    let value = device.load(self.index, address)?.to_le_bytes();
                    data.copy_from_slice(&value[..data.len()]);
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    let mut value = [0; 8];
                    value[..data.len()].copy_from_slice(data);
                    let value = u64::from_le_bytes(value);
                    if device.store(self.index, address, value)?.is_break() {
                        return Ok(());
                    }
                }
                Ok(exit) => bail!("vCPU {} stopped: {exit:?}", self.index),
                // A signal came: whoever sent it has been served, the guest goes on.
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => bail!("vCPU {} can't run: {error}", self.index),
            }
        }
    }
}
