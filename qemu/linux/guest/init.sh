#!/bin/sh
# The guest's first process, run by the kernel from the initramfs with the console as its terminal. It says at once that
# user space is reached, sets up what programs expect of a system, and keeps the agent running.

/usr/bin/stamp

export PATH=/usr/sbin:/usr/bin HOME=/root TERM=linux
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t debugfs debug /sys/kernel/debug
hostname sidecar
cd /root

while :; do
    python3 -I -S /usr/lib/sidecar/agent.py /dev/ttyS1
    echo "guest: the agent ended with status $?"
    sleep 1
done
