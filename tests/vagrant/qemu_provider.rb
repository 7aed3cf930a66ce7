# Stands for the plugin vagrant-qemu, which Debian does not have: a provider with the names of its settings, so that
# `vagrant validate` sees a setting that does not exist. Loads the Vagrantfile that VM_VAGRANTFILE names.
module QemuStandIn
  class Config < Vagrant.plugin("2", :config)
    attr_accessor :ssh_host, :ssh_port, :ssh_auto_correct, :arch, :machine, :cpu, :smp, :memory, :net_device,
                  :drive_interface, :image_path, :qemu_bin, :qemu_dir, :disk_resize, :extra_qemu_args,
                  :extra_netdev_args, :extra_drive_args, :control_port, :debug_port, :no_daemonize, :firmware_format,
                  :other_default, :extra_image_opts

    def validate(machine)
      { "QEMU Provider" => _detected_errors }
    end
  end

  class Provider < Vagrant.plugin("2", :provider)
    def state
      Vagrant::MachineState.new(:not_created, "not created", "")
    end
  end

  class Plugin < Vagrant.plugin("2")
    name "vagrant-qemu stand-in"
    provider(:qemu, box_format: "libvirt") { Provider }
    config(:qemu, :provider) { Config }
  end
end

load ENV.fetch("VM_VAGRANTFILE")
