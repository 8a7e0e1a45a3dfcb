# Where jobs run. Each command is local, slurm or the path of a script, with options that all jobs of its kind get:
#   local   [--max_jobs_run N]           on this machine, one job a core or a GPU
#   slurm   [--mem 4G] [--time 2:0:0] [--max_jobs_run N] [--config conf/slurm.conf]
#   script  that is called like Kaldi's run.pl: script [--gpu N] JOB=1:N logdir/name.JOB.log command ...
# train_cmd: jobs on the CPU; cuda_cmd: training, and dump and decoding with --ngpu; decode_cmd: decoding on the CPU
cmd_backend=local

case "${cmd_backend}" in
    local)
        export train_cmd=local
        export cuda_cmd=local
        export decode_cmd=local
        ;;
    slurm) # set your partitions in conf/slurm.conf
        export train_cmd="slurm --mem 4G"
        export cuda_cmd="slurm --mem 8G"
        export decode_cmd="slurm --mem 4G"
        ;;
    *)
        echo "cmd.sh: cmd_backend=${cmd_backend} is not known; use local or slurm" >&2
        return 2
        ;;
esac
