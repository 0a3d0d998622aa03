name      = "lb1"
data_dir  = "/var/lib/skein"
advertise = "198.51.100.1"
