# For machines without hardware virtualization: libvirt's plain qemu driver, and the kernel started directly, which spares the boot
# loader. scripts/vagrant-lab sets SKEIN_EMULATED to the folder in which scripts/build-box has put box, kernel and initrd.
def emulated(config)
  dir = ENV.fetch("SKEIN_EMULATED")
  config.vm.boot_timeout = 1200
  config.vm.graceful_halt_timeout = 120
  config.ssh.connect_timeout = 120 # on a machine that does more than this, sshd takes half a minute to say its version
  config.vm.provider "libvirt" do |p|
    p.driver       = "qemu"
    p.cpu_mode     = "custom"
    p.cpu_model    = "qemu64"
    p.machine_type = "pc"
    p.memory       = 320
    p.graphics_type = "none"
    p.video_type    = "none"
    p.kernel   = File.join(dir, "vmlinuz")
    p.initrd   = File.join(dir, "initrd")
    p.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off"
    p.management_network_name    = "skein-management"
    p.management_network_address = "198.19.0.0/24"
    p.management_network_mode    = "none"
  end
end
