# Where jobs run: each command is one of these, with options that all jobs of its kind get.
#   local [--max_jobs_run N]     this machine, one job a core or a GPU
#   slurm [--mem 4G] [--time 2:0:0] [--max_jobs_run N] [--config conf/slurm.conf]
#   the path of a script that is called like Kaldi's run.pl: [--gpu N] JOB=1:N logdir/name.JOB.log command ...
cmd_backend=local # local or slurm; for slurm set your partitions in conf/slurm.conf

case "${cmd_backend}" in
    local) export train_cmd=local cuda_cmd=local decode_cmd=local ;;
    slurm)
        export train_cmd="slurm --mem 4G"  # jobs on the CPU
        export cuda_cmd="slurm --mem 8G"   # training; with --ngpu also dump and decoding
        export decode_cmd="slurm --mem 4G" # decoding on the CPU
        ;;
    *)
        echo "error: cmd.sh: cmd_backend=${cmd_backend} is not known; use local or slurm" >&2
        exit 2
        ;;
esac
